/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which regions of the device are armed, and how many changes are under way in each.
 *
 * A word for each region: a bit that says armed, and a count.  Threads that change the device
 * count themselves in first and look at the bit then; the recorder takes the bit away only from
 * a region that nobody counts in.  So nobody is ever in a region that is not armed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"

struct regions {
	unsigned shift;                 /* a region is 1 << shift bytes */
	uint32_t n;
	_Atomic uint32_t *words;
	_Atomic uint8_t *touched;       /* the epoch of the last change */
	_Atomic uint8_t epoch;          /* counts seconds, around and around */

	/* The recorder's */
	uint32_t *armed;                /* sorted */
	uint32_t n_armed, limit;
};

/* `limit`: how many may be armed at once. */
int regions_init(struct regions *regions, uint64_t size, unsigned shift, uint32_t limit,
                 struct failure *why);
void regions_deinit(struct regions *regions);

/* Any thread: counts into all regions of [start, end), bytes.  False, and nothing is counted,
 * where one of them is not armed. */
bool regions_enter(struct regions *regions, uint64_t start, uint64_t end);
void regions_leave(struct regions *regions, uint64_t start, uint64_t end);

/* --- the recorder's --- */

bool region_is_armed(const struct regions *regions, uint32_t region);

/*
 * Counts into all regions of [start, end), armed or not, so that none is disarmed before
 * regions_leave(); those that are not armed are appended to `list` (`*n` of `room`; some
 * perhaps twice).  False, and nothing was done, where there is no room.
 */
bool regions_hold(struct regions *regions, uint64_t start, uint64_t end, uint32_t *list,
                  uint32_t *n, uint32_t room);

/* Takes the armed bit away.  False while changes are under way there. */
bool region_disarm(struct regions *regions, uint32_t region);

/* Gives it back, to one that is in the armed list still. */
void region_arm(struct regions *regions, uint32_t region);

/* Seconds since the last change, about. */
unsigned region_age(const struct regions *regions, uint32_t region);

/* The armed list becomes `list` (n of them, sorted), bits and all: for what is in both nothing
 * changes, what is not in `list` any more has been disarmed. */
void regions_set_armed(struct regions *regions, const uint32_t *list, uint32_t n);

/* None is armed any more, whoever is counted in. */
void regions_forget(struct regions *regions);
