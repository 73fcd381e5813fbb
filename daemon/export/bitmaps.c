/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/bitmaps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "export/bitmap-store.h"
#include "export/contexts.h"
#include "export/export.h"
#include "export/lasting-identity.h"

static int flush(void *userdata)
{
	return flush_wait(userdata);
}

static void sync_failed(void *userdata, int error)
{
	flush_failed(userdata, error, "syncing the device at the start failed");
}

static unsigned shift_of(uint64_t power_of_two)
{
	return (unsigned) __builtin_ctzll(power_of_two);
}

static int open_tracker(struct export *export, const char *path, const char *const *names,
                        struct failure *why)
{
	const struct export_settings *settings = export->settings;
	const struct device *dev = &export->device;
	char identity[LASTING_IDENTITY_SIZE];
	struct tracker_settings wanted = {
		.label = settings->label, .path = path, .names = names,
		.device = dev->path, .device_fd = dev->fd, .identity = identity,
		.size = dev->size, .read_only = dev->read_only,
		.granule_shift = shift_of(settings->bitmap_granularity),
		.region_shift = shift_of(settings->bitmap_region),
		.arm_limit = settings->bitmap_arm_limit, .cold_seconds = settings->bitmap_cold,
		.on_error = settings->on_bitmap_error == EXPORT_WRITES_STOP ? TRACKER_STOP : TRACKER_LOST,
		.n_lanes = export->n_loops,
		.flush = flush, .sync_failed = sync_failed, .changed = contexts_changed,
		.decided = group_look, .userdata = export,
	};

	lasting_identity(dev, identity);
	return tracker_open(&export->tracker, &wanted, why);
}

int bitmaps_open(struct export *export, struct failure *why)
{
	AUTO_FREE const char **names = NULL;
	char path[PATH_MAX];
	int r;

	r = bitmap_store_path(export->settings, path, why);
	if (r == 0)
		r = bitmap_store_refuse_own_stack(path, &export->device, why);
	if (r == 0)
		r = bitmap_names_split(export->settings->bitmaps, &names, why);
	return r == 0 ? open_tracker(export, path, names, why) : r;
}

static void note(char *ret, const struct bitmap_info *info)
{
	size_t len = strlen(ret);

	if (info->state == BITMAP_GAP || info->state == BITMAP_LOST)
		(void) snprintf(ret + len, BITMAPS_PROBLEM_SIZE - len, "%s%.64s (%s)", len ? ", " :
		                "all of the device counts as changed in the bitmaps ", info->name, bitmap_state_word(info->state));
}

void bitmaps_problem(const struct export *export, char ret[static BITMAPS_PROBLEM_SIZE])
{
	AUTO_FREE struct bitmap_info *infos = calloc(BITMAPS_MAX, sizeof *infos);
	struct tracker_status status;
	unsigned n;

	ret[0] = '\0';
	tracker_status(export->tracker, &status);
	if (status.failing[0]) {
		(void) snprintf(ret, BITMAPS_PROBLEM_SIZE, "bitmaps cannot be kept: %s", status.failing);
		return;
	}
	n = infos ? tracker_list(export->tracker, infos) : 0;
	for (unsigned i = 0; i < n; i++)
		note(ret, &infos[i]);
}
