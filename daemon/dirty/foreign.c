/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/foreign.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "dirty/trace.h"
#include "dirty/tracker-state.h"

static bool records(const struct bitmap_entry *entry)
{
	return entry->follows || entry->watches;
}

/* `doubt`: NULL, or what cannot be known; what was counted says more. */
static void word_reason(char ret[static BITMAP_REASON_MAX + 1], uint64_t sectors, const char *doubt)
{
	const size_t size = BITMAP_REASON_MAX + 1;

	if (sectors > 0 && sectors < UINT64_MAX)
		(void) snprintf(ret, size, "%" PRIu64 " sectors were written by others since it was left",
		                sectors);
	else
		(void) snprintf(ret, size, "%s", doubt ? doubt :
		                "something was written by others since it was left");
}

static void make_gap(struct tracker *tracker, struct catalogue *draft, const char *reason,
                     uint64_t sectors)
{
	struct subject about = { .sectors = sectors == UINT64_MAX ? 0 : sectors };

	for (unsigned i = 0; i < draft->n_bitmaps; i++) {
		about.bitmap = draft->bitmaps[i].name;
		if (!records(&draft->bitmaps[i]))
			continue;
		tracker_lose_bitmap(&draft->bitmaps[i], BITMAP_GAP, reason);
		log_event(EVENT_BITMAP_GAP, &about, "bitmap %s: %s (%s): all of the device counts as "
		          "changed, until it is cleared", about.bitmap, reason,
		          tracker->settings.device);
	}
}

void foreign_check(struct tracker *tracker, struct catalogue *draft, const struct device_trace *now,
                   bool unclean)
{
	const struct device_trace *then = &draft->trace;
	const char *doubt = unclean ? NULL : trace_doubt(then, now);
	char reason[BITMAP_REASON_MAX + 1];
	uint64_t sectors;

	if (unclean && !trace_is_of_other_boot(then, now))
		return;
	sectors = trace_compare(then, now);
	if (sectors == 0 && !doubt)
		return;
	word_reason(reason, sectors, doubt);
	make_gap(tracker, draft, reason, sectors);
}
