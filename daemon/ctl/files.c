/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/text.h"

#define NAME_SHOWN 64u

static void note_bad_file(void *userdata, const char *path, const struct failure *why)
{
	struct files *f = userdata;
	struct bad_file *more = reallocarray(f->bad, f->n_bad + 1, sizeof *more);
	struct bad_file bad = { .path = strdup(path), .sentence = strdup(why->text) };
	struct failure ignored = { 0 };

	if (more)
		f->bad = more;
	if (!more || !bad.path || !bad.sentence) {
		log_error("%s", why->text);             /* told at least */
		free(bad.path);
		free(bad.sentence);
		return;
	}
	(void) export_label_of(path, &bad.label, &ignored);
	f->bad[f->n_bad++] = bad;
}

int files_read(const char *folder, struct files *ret, struct failure *why)
{
	struct files f = { 0 };
	int r = export_settings_read_folder(folder, &f.good, &f.n_good, note_bad_file, &f, why);

	if (r < 0 && r != -ENOENT) {
		files_clear(&f);
		return r;
	}
	*ret = f;
	return 0;
}

void files_clear(struct files *f)
{
	for (size_t i = 0; i < f->n_good; i++)
		export_settings_clear(&f->good[i]);
	free(f->good);
	for (size_t i = 0; i < f->n_bad; i++) {
		free(f->bad[i].path);
		free(f->bad[i].label);
		free(f->bad[i].sentence);
	}
	free(f->bad);
	*f = (struct files) { 0 };
}

const struct export_settings *files_find(const struct files *f, const char *label)
{
	for (size_t i = 0; i < f->n_good; i++)
		if (strcmp(f->good[i].label, label) == 0)
			return &f->good[i];
	return NULL;
}

const struct bad_file *files_find_bad(const struct files *f, const char *label)
{
	for (size_t i = 0; i < f->n_bad; i++)
		if (f->bad[i].label && strcmp(f->bad[i].label, label) == 0)
			return &f->bad[i];
	return NULL;
}

static bool same_device(const char *a, const char *b)
{
	struct stat of_a, of_b;

	if (strcmp(a, b) == 0)
		return true;
	if (stat(a, &of_a) < 0 || stat(b, &of_b) < 0)
		return false;
	if (S_ISBLK(of_a.st_mode) && S_ISBLK(of_b.st_mode))
		return of_a.st_rdev == of_b.st_rdev;
	return of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/* A file that both only read needs no Shared=. */
static bool share(const struct export_settings *a, const struct export_settings *b)
{
	struct stat st;

	if (!a->read_only || !b->read_only)
		return false;
	return (a->shared && b->shared) || (stat(a->device, &st) == 0 && S_ISREG(st.st_mode));
}

static int check_pair(const struct export_settings *s, const struct export_settings *other,
                      struct failure *why)
{
	char shown[NAME_SHOWN + 4];

	printable(span_of(s->name), NAME_SHOWN, shown, sizeof shown);
	if (strcmp(s->name, other->name) == 0)
		return fail_plain(why, EEXIST, "the name \"%s\" is that of the export %s already",
		                  shown, other->label);
	if (s->is_default && other->is_default)
		return fail_plain(why, EEXIST, "the export %s answers to the empty name already",
		                  other->label);
	if (same_device(s->device, other->device) && !share(s, other))
		return fail_plain(why, EBUSY, "%.200s is in use: the export %s has it", s->device,
		                  other->label);
	return 0;
}

int files_check_beside(const struct files *f, const struct export_settings *s,
                       struct failure *why)
{
	for (size_t i = 0; i < f->n_good; i++) {
		int r = 0;

		if (strcmp(f->good[i].label, s->label) != 0)
			r = check_pair(s, &f->good[i], why);
		if (r < 0)
			return r;
	}
	return 0;
}
