/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalogue: every export's file of a folder, by label. */
#include "base/export-settings.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define SUFFIX EXPORT_FILE_SUFFIX
#define AUTO_SETTINGS __attribute__((cleanup(export_settings_clear))) struct export_settings

/* The files that were good so far. */
struct catalogue {
	const char *dir;
	struct export_settings *exports;
	size_t n;
};

static void clear_catalogue(struct catalogue *c)
{
	for (size_t i = 0; i < c->n; i++)
		export_settings_clear(&c->exports[i]);
	free(c->exports);
	c->exports = NULL;
	c->n = 0;
}

static int is_export_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && export_file_has_suffix(entry->d_name);
}

/* By label: with the suffix, "a-b.conf" would come before "a.conf". */
static int by_label(const struct dirent **a, const struct dirent **b)
{
	size_t len_a = strlen((*a)->d_name) - strlen(SUFFIX);
	size_t len_b = strlen((*b)->d_name) - strlen(SUFFIX);
	int order = memcmp((*a)->d_name, (*b)->d_name, len_a < len_b ? len_a : len_b);

	return order ? order : (len_a > len_b) - (len_a < len_b);
}

/* Two exports cannot answer to one name, nor two to the empty one. */
static int check_unique(const struct catalogue *c, const struct export_settings *s,
                        struct failure *why)
{
	char shown[68];

	for (size_t i = 0; i < c->n; i++) {
		const struct export_settings *other = &c->exports[i];

		printable(span_of(s->name), 64, shown, sizeof shown);
		if (strcmp(other->name, s->name) == 0)
			return fail_plain(why, EEXIST, "%.180s/%s" SUFFIX ": the name %s is "
			                  "that of %s" SUFFIX " already", c->dir, s->label,
			                  shown, other->label);
		if (other->is_default && s->is_default)
			return fail_plain(why, EEXIST, "%.180s/%s" SUFFIX ": Default=yes "
			                  "stands in %s" SUFFIX " already", c->dir, s->label,
			                  other->label);
	}
	return 0;
}

static int add_export(struct catalogue *c, const char *path, struct failure *why)
{
	AUTO_SETTINGS s = { 0 };
	struct export_settings *more;
	int r = export_settings_read(path, &s, why);

	if (r < 0)
		return r;
	r = check_unique(c, &s, why);
	if (r < 0)
		return r;
	more = reallocarray(c->exports, c->n + 1, sizeof *more);
	if (!more)
		return fail(why, ENOMEM, "%.300s", path);
	c->exports = more;
	c->exports[c->n++] = s;
	s = (struct export_settings) { 0 };
	return 0;
}

int export_settings_read_folder(const char *dir, struct export_settings **ret, size_t *ret_n,
                                void (*bad)(void *userdata, const char *path,
                                            const struct failure *why),
                                void *userdata, struct failure *why)
{
	__attribute__((cleanup(clear_catalogue))) struct catalogue c = { .dir = dir };
	struct dirent **files;
	int n_files = scandir(dir, &files, is_export_file, by_label);

	if (n_files < 0)
		return fail(why, errno, "cannot read the folder %.300s", dir);
	for (int i = 0; i < n_files; i++) {
		AUTO_FREE char *path = NULL;
		struct failure here = { 0 };

		if (asprintf(&path, "%s/%s", dir, files[i]->d_name) < 0) {
			path = NULL;
			(void) fail(&here, ENOMEM, "cannot read %s", files[i]->d_name);
			bad(userdata, files[i]->d_name, &here);
		} else if (add_export(&c, path, &here) < 0) {
			bad(userdata, path, &here);
		}
		free(files[i]);
	}
	free(files);
	*ret = take_ptr(c.exports);
	*ret_n = c.n;
	c.n = 0;
	return 0;
}
