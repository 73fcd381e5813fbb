/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/strays.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/log.h"
#include "base/paths.h"
#include "ctl/units.h"

struct strays {
	const struct places *places;
	struct stray *all;
	size_t n;
};

static bool has_file(const struct places *p, const char *label)
{
	AUTO_FREE char *path = places_file(p, label);

	return !path || access(path, F_OK) == 0 || errno != ENOENT;
}

static int note(struct strays *s, const char *label, bool has_unit)
{
	struct stray *more;

	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->all[i].label, label) == 0)
			return 0;
	if (has_file(s->places, label))
		return 0;
	more = reallocarray(s->all, s->n + 1, sizeof *more);
	if (!more)
		return -ENOMEM;
	s->all = more;
	more[s->n] = (struct stray) { strdup(label), has_unit };
	if (!more[s->n].label)
		return -ENOMEM;
	s->n++;
	return 0;
}

static int note_units(struct strays *s, struct failure *why)
{
	AUTO_FREE struct unit_seen *seen = NULL;
	struct units u;
	size_t n = 0;
	int r;

	if (!s->places->of_units)
		return 0;
	r = units_connect(&u, why);
	if (r == 0)
		r = units_list(&u, &seen, &n, why);
	units_close(&u);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (strcmp(seen[i].state, "inactive") != 0 && note(s, seen[i].label, true) < 0)
			r = fail(why, ENOMEM, "cannot list what has no file");
	return r;
}

static bool is_label(const char *name)
{
	struct failure ignored = { 0 };

	return export_label_check(name, &ignored) == 0;
}

static int note_folders(struct strays *s, struct failure *why)
{
	AUTO_FREE char *path = NULL;
	int r = 0;
	DIR *dir;

	if (asprintf(&path, "%s/instances", s->places->runtime) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot list what has no file");
	}
	dir = opendir(path);
	if (!dir)
		return 0;
	for (const struct dirent *entry; r == 0 && (entry = readdir(dir));)
		if (is_label(entry->d_name) && note(s, entry->d_name, false) < 0)
			r = fail(why, ENOMEM, "cannot list what has no file");
	(void) closedir(dir);
	return r;
}

int strays_read(const struct places *p, struct stray **ret, size_t *ret_n, struct failure *why)
{
	struct strays s = { .places = p };
	int r = note_units(&s, why);

	if (r == 0)
		r = note_folders(&s, why);
	if (r < 0) {
		strays_free(s.all, s.n);
		return r;
	}
	*ret = s.all;
	*ret_n = s.n;
	return 0;
}

void strays_look(const struct places *p, struct stray **ret, size_t *ret_n)
{
	struct strays s = { .places = p };
	struct failure no_units = { 0 }, no_folders = { 0 };

	(void) note_units(&s, &no_units);
	/* With other files than the units' what runs as units has no part in them. */
	if (p->of_units || strcmp(p->runtime, RUN_DIR) != 0)
		(void) note_folders(&s, &no_folders);
	*ret = s.all;
	*ret_n = s.n;
}

void strays_free(struct stray *strays, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(strays[i].label);
	free(strays);
}

bool stray_exists(const struct places *p, const char *label)
{
	struct stray *strays;
	bool found = false;
	size_t n;

	strays_look(p, &strays, &n);
	for (size_t i = 0; i < n; i++)
		found = found || strcmp(strays[i].label, label) == 0;
	strays_free(strays, n);
	return found;
}

static void clear_instance(const struct places *p, const char *label)
{
	AUTO_FREE char *folder = NULL;
	AUTO_FD fd = -1;

	if (asprintf(&folder, "%s/instances/%s", p->runtime, label) < 0) {
		folder = NULL;
		return;
	}
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	(void) unlinkat(fd, CONTROL_SOCKET, 0);
	if (rmdir(folder) < 0 && errno != ENOENT)
		log_warning("cannot remove %s, ignoring: %s", folder, strerror(errno));
}

/* One with a note in it stays. */
static void clear_notes_folder(const struct places *p, const char *label)
{
	AUTO_FREE char *folder = NULL;

	if (asprintf(&folder, "%s/flush-failed/%s", p->runtime, label) < 0)
		folder = NULL;
	else
		(void) rmdir(folder);
}

void stray_clear(const struct places *p, const char *label)
{
	clear_instance(p, label);
	clear_notes_folder(p, label);
}
