/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/confine.h"
#include "base/group-file.h"
#include "base/latch-file.h"
#include "base/log.h"
#include "export/bitmap-store.h"

/* dirname() of a copy. */
static const char *folder_of(const char *path, char room[static PATH_MAX])
{
	(void) snprintf(room, PATH_MAX, "%s", path);
	return dirname(room);
}

int sandbox_enter(const struct server_options *options, const struct export_settings *settings,
                  const struct device *device, struct failure *why)
{
	char store[PATH_MAX], of_store[PATH_MAX], of_control[PATH_MAX], groups[PATH_MAX], data[32];
	struct latch_place notes;
	bool is_on = false;
	int r = bitmap_store_path(settings, store, why);

	if (r < 0)
		return r;
	latch_place_find(settings->label, &notes);
	if (group_folder(groups) < 0)
		(void) snprintf(groups, sizeof groups, "%s", notes.all);
	(void) snprintf(data, sizeof data, "/proc/self/fd/%d", device->fd);
	const struct confine_path paths[] = {
		/* So a folder of settings that is put in the place of another is found, too. */
		{ "/etc", false }, { options->exports, false },
		{ "/proc", false }, { "/sys", false }, { "/usr", false },
		{ notes.all, false }, { notes.own, true }, { groups, false },
		{ folder_of(store, of_store), true },
		{ folder_of(options->control ? options->control : store, of_control), true },
		/* Opened again when it grows beyond whole sectors. */
		{ data, !settings->read_only },
	};
	r = confine_paths(paths, ARRAY_LEN(paths), &is_on, why);
	if (r == 0)
		log_debug("may open %s", is_on ? "its own files only" : "what its user may");
	return r;
}

int sandbox_check(const char *path)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1;
}
