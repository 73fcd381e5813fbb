/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/bitmap-purge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/paths.h"
#include "base/state-folder.h"

static int usual_place(const char *label, char ret[PATH_MAX])
{
	char folder[PATH_MAX];
	int r = state_folder(label, folder, sizeof folder);

	if (r == 0 && snprintf(ret, PATH_MAX, "%s/" BITMAPS_FILE, folder) >= PATH_MAX)
		r = -ENAMETOOLONG;
	return r;
}

int bitmap_file_of(const struct places *p, const char *label, struct bitmap_file *ret,
                   struct failure *why)
{
	AUTO_FREE char *file = places_file(p, label);
	struct export_settings s = { 0 };
	struct failure bad_file = { 0 };
	int r;

	if (!file)
		return fail(why, ENOMEM, "cannot look for the bitmaps of %s", label);
	*ret = (struct bitmap_file) { .guessed = export_settings_read(file, &s, &bad_file) < 0 };
	r = usual_place(label, ret->path);
	if (!ret->guessed && *s.bitmap_store) {
		ret->elsewhere = r < 0 || strcmp(s.bitmap_store, ret->path) != 0;
		(void) snprintf(ret->path, sizeof ret->path, "%s", s.bitmap_store);
		r = 0;
	}
	export_settings_clear(&s);
	return r < 0 ? fail(why, -r, "cannot look for the bitmaps of %s", label) : 0;
}

bool bitmap_file_is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int bitmap_file_remove(const char *path, const char *label, struct failure *why)
{
	if (unlink(path) < 0 && errno != ENOENT)
		return fail(why, errno, "cannot remove the bitmaps of %s, %s", label, path);
	return 0;
}

void bitmap_folder_remove(const char *label)
{
	char own[PATH_MAX];

	if (state_folder(label, own, sizeof own) == 0)
		(void) rmdir(own);
}
