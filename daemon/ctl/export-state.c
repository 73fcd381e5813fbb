/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/export-state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/attr.h"

#define SECTOR 512u

/* Of a device that nobody opens for it: what sysfs says. */
static bool size_of_block_device(dev_t rdev, uint64_t *ret)
{
	char path[64];
	uint64_t sectors;
	FILE *file;
	bool good;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/size", major(rdev), minor(rdev));
	file = fopen(path, "re");
	if (!file)
		return false;
	good = fscanf(file, "%" SCNu64, &sectors) == 1;
	(void) fclose(file);
	if (good)
		*ret = sectors * SECTOR;
	return good;
}

/* An export that does not run: its device may tell why. */
static void look_at_device(struct export_state *e)
{
	struct stat st;

	e->word = "inactive";
	if (stat(e->settings->device, &st) < 0) {
		if (errno == ENOENT)
			e->word = "no-device";
		return;
	}
	if (S_ISBLK(st.st_mode)) {
		e->has_size = size_of_block_device(st.st_rdev, &e->size);
	} else if (S_ISREG(st.st_mode)) {
		e->has_size = true;
		e->size = (uint64_t) st.st_size - (uint64_t) st.st_size % SECTOR;
	}
}

static const char *word_of_failure(int r)
{
	return r == -EACCES || r == -EPERM ? "unknown" : "no-answer";
}

void export_state_read(const struct places *p, const struct export_settings *s,
                       struct export_state *ret)
{
	struct export_state e = { .settings = s };
	struct failure why = { 0 };
	int r = running_read(p, s->label, &e.running, &why);

	if (r == 0) {
		e.runs = true;
		e.word = e.running.state ? e.running.state : "serving";
		e.reason = e.running.state_reason && *e.running.state_reason ?
		           strdup(e.running.state_reason) : NULL;
		e.has_size = true;
		e.size = e.running.size;
	} else {
		look_at_device(&e);
		if (!control_is_absent(r)) {
			e.silent = true;
			e.word = word_of_failure(r);
			e.reason = strdup(why.text);
		}
	}
	*ret = e;
}

void export_state_clear(struct export_state *e)
{
	running_clear(&e->running);
	free(e->reason);
	*e = (struct export_state) { 0 };
}
