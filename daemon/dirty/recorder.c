/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recorder: a thread that arms regions, writes pages back, and disarms what is cold.
 *
 * The order that everything hangs on (docs/dirty-tracking.md gives the reasons):
 *
 *   arming     record with the region, synced; then the bit that lets changes pass
 *   write-back record that announces the pages, synced; then the pages, synced
 *   disarming  the bit taken from a region that no change is in; the device flushed; its pages written
 *              back; then a record without it, synced
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "dirty/tracker-state.h"

#define SECOND UINT64_C(1000000)
#define PRESSED_RETRY (SECOND / 10)

/* Arming and disarming */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static uint32_t sort_out(uint32_t *list, uint32_t n)
{
	uint32_t kept = 0;

	qsort(list, n, sizeof *list, by_number);
	for (uint32_t i = 0; i < n; i++)
		if (kept == 0 || list[kept - 1] != list[i])
			list[kept++] = list[i];
	return kept;
}

/* What stays armed, and what comes: both lists are sorted and have nothing in common. */
static uint32_t merge(const struct regions *regions, const uint32_t *wanted, uint32_t n_wanted,
                      uint32_t *ret)
{
	uint32_t n = 0, j = 0;

	for (uint32_t i = 0; i < regions->n_armed; i++) {
		if (!region_is_armed(regions, regions->armed[i]))
			continue;
		while (j < n_wanted && wanted[j] < regions->armed[i])
			ret[n++] = wanted[j++];
		ret[n++] = regions->armed[i];
	}
	while (j < n_wanted)
		ret[n++] = wanted[j++];
	return n;
}

/* Their bits come back: the medium has them armed still, since no record without them was written. */
static void keep_victims(struct tracker *tracker, uint32_t n_victims)
{
	for (uint32_t i = 0; i < n_victims; i++)
		region_arm(&tracker->regions, tracker->victims[i]);
}

/* Victims have lost their bit already; `wanted` get theirs once a record has them. */
static int rearm(struct tracker *tracker, const uint32_t *wanted, uint32_t n_wanted,
                 uint32_t n_victims, struct failure *why)
{
	uint32_t n = 0;
	int r = 0;

	/* A flush that fails has been told by whoever makes it; the bits are written all the same. */
	if (n_victims > 0) {
		(void) tracker->settings.flush(tracker->settings.userdata);
		r = recorder_write_back_regions(tracker, tracker->victims, n_victims, why);
		if (r < 0)
			keep_victims(tracker, n_victims);
	}
	if (r == 0) {
		n = merge(&tracker->regions, wanted, n_wanted, tracker->list);
		r = recorder_write_record(tracker, tracker->list, n, 0, why);
	}
	if (r < 0)      /* the medium has more armed than memory, which is no harm */
		n = merge(&tracker->regions, NULL, 0, tracker->list);
	regions_set_armed(&tracker->regions, tracker->list, n);
	return r;
}

/* The oldest first: how old the youngest is that has to go, so that `need` go. */
static unsigned age_to_go(const struct regions *regions, uint32_t need)
{
	uint32_t by_age[256] = { 0 };
	unsigned age = 255;

	for (uint32_t i = 0; i < regions->n_armed; i++)
		by_age[region_age(regions, regions->armed[i])]++;
	while (age > 0 && by_age[age] < need)
		need -= by_age[age--];
	return age;
}

/* Takes their bits from regions of that age that no change is in; at most `most`. */
static uint32_t choose_victims(struct tracker *tracker, unsigned age, uint32_t most)
{
	struct regions *regions = &tracker->regions;
	uint32_t n = 0;

	for (uint32_t i = 0; i < regions->n_armed && n < most; i++)
		if (region_age(regions, regions->armed[i]) >= age &&
		    region_disarm(regions, regions->armed[i]))
			tracker->victims[n++] = regions->armed[i];
	return n;
}

/* How many have been chosen to make room for so many; an eighth at least, so that it is not done
 * for each record. */
static uint32_t make_room(struct tracker *tracker, uint32_t n_wanted)
{
	const struct regions *regions = &tracker->regions;
	uint32_t room = regions->limit - regions->n_armed, need;

	if (n_wanted <= room)
		return 0;
	need = n_wanted - room;
	if (need < regions->limit / 8)
		need = regions->limit / 8;
	return choose_victims(tracker, age_to_go(regions, need), need);
}

/* Changes that wait */

/* Grants what can be; returns the others. */
static struct change *grant(struct tracker *tracker, struct change *changes)
{
	struct change *next, *left = NULL, **end = &left;

	for (; changes; changes = next) {
		next = changes->next;
		if (tracker_grant(tracker, changes))
			continue;
		changes->next = NULL;
		*end = changes;
		end = &changes->next;
	}
	return left;
}

/* Holds the regions of as many changes as may be armed together; returns the first that is not among
 * them. */
static struct change *hold(struct tracker *tracker, struct change *changes, uint32_t *wanted,
                           uint32_t *n)
{
	struct regions *regions = &tracker->regions;
	struct change *change = changes;

	while (change && !tracker_is_long(tracker, change) &&
	       regions_hold(regions, change->start, change->end, wanted, n, regions->limit))
		change = change->next;
	return change;
}

static void let_go(struct tracker *tracker, struct change *changes, const struct change *end)
{
	for (; changes != end; changes = changes->next)
		regions_leave(&tracker->regions, changes->start, changes->end);
}

/* Takes the long ones out of the list that `*changes` begins, and records them. */
static int record_long(struct tracker *tracker, struct change **changes, struct failure *why)
{
	struct change *longs = NULL, **end = &longs, *change;
	int r = 0;

	while (*changes) {
		change = *changes;
		if (!tracker_is_long(tracker, change)) {
			changes = &change->next;
			continue;
		}
		*changes = change->next;
		change->next = NULL;
		*end = change;
		end = &change->next;
	}
	*changes = longs;               /* at the end: the others are armed together */
	for (change = longs; change && r == 0; change = change->next)
		r = recorder_record_exactly(tracker, change, why);
	if (r == 0 && longs)
		r = recorder_announce_none(tracker, why);
	for (change = longs; change; change = change->next)
		change->recorded = r == 0;
	return r;
}

/* Arms what they need.  What does not fit beside that which others are in waits on. */
static struct change *arm(struct tracker *tracker, struct change *changes)
{
	struct regions *regions = &tracker->regions;
	uint32_t *wanted = tracker->wanted, n = 0, n_victims;
	struct failure why = { 0 };
	struct change *end;
	int r = 0;

	changes = grant(tracker, changes);
	if (!changes)
		return NULL;
	r = record_long(tracker, &changes, &why);
	if (r < 0) {
		recorder_store_failed(tracker, &why);
		return grant(tracker, changes);
	}
	end = hold(tracker, changes, wanted, &n);
	n = sort_out(wanted, n);
	n_victims = make_room(tracker, n);
	if (n > regions->limit - regions->n_armed + n_victims)
		n = regions->limit - regions->n_armed + n_victims;
	if (n > 0 || n_victims > 0)
		r = rearm(tracker, wanted, n, n_victims, &why);
	let_go(tracker, changes, end);
	if (r < 0)
		recorder_store_failed(tracker, &why);
	return grant(tracker, changes);
}

int recorder_forget_armed(struct tracker *tracker, struct failure *why)
{
	if (tracker->regions.n_armed > 0 || tracker->store.n_announced > 0) {
		int r = recorder_write_record(tracker, NULL, 0, 0, why);

		if (r < 0)
			return r;
	}
	regions_forget(&tracker->regions);
	return 0;
}

/* The thread */

/* Once a second while something is armed. */
static void look_around(struct tracker *tracker)
{
	struct regions *regions = &tracker->regions;
	struct failure why = { 0 };
	uint32_t n;

	atomic_fetch_add(&regions->epoch, 1);
	if (atomic_load(&tracker->refuse)) {
		recorder_try_again(tracker);
		return;
	}
	if (tracker_has_pending(tracker) && tracker_resolve(tracker, &why) < 0)
		log_warning("%s: %s", tracker->path, why.text);
	n = choose_victims(tracker, tracker->settings.cold_seconds, regions->limit);
	if (n > 0 && rearm(tracker, NULL, 0, n, &why) < 0)
		recorder_store_failed(tracker, &why);
}

static void end_hold(struct tracker *tracker)
{
	tracker->held = false;
	tracker_open_gate(tracker);
}

/* While changes are held only what belongs to that is done. */
static struct edit **find_edit(struct tracker *tracker)
{
	struct edit **at = &tracker->edits;

	while (*at && tracker->held && !(*at)->held && (*at)->kind != EDIT_RELEASE &&
	       (*at)->kind != EDIT_RESOLVE)
		at = &(*at)->next;
	return at;
}

static struct edit *next_edit(struct tracker *tracker)
{
	struct edit **at = find_edit(tracker), *edit = *at;

	if (!edit)
		return NULL;
	*at = edit->next;
	if (!*at)
		for (tracker->edits_end = &tracker->edits; *tracker->edits_end;)
			tracker->edits_end = &(*tracker->edits_end)->next;
	return edit;
}

static struct change *take_waiting(struct tracker *tracker)
{
	struct change *changes = tracker->waiting;

	if (tracker->held)
		return NULL;
	tracker->waiting = NULL;
	tracker->waiting_end = &tracker->waiting;
	return changes;
}

/* In front of those that came meanwhile. */
static void put_back(struct tracker *tracker, struct change *changes)
{
	struct change **end = &changes;

	while (*end)
		end = &(*end)->next;
	if (!tracker->waiting)
		tracker->waiting_end = end;
	*end = tracker->waiting;
	tracker->waiting = changes;
	if (!*end)
		tracker->waiting_end = end;
}

/* When to look again without being called; 0: never. */
static uint64_t wake_up_at(const struct tracker *tracker)
{
	uint64_t at = tracker->next_look;

	if (tracker->held && (!at || tracker->hold_ends < at))
		at = tracker->hold_ends;
	if (atomic_load(&tracker->pressed)) {
		uint64_t soon = tracker_now() + PRESSED_RETRY;

		at = !at || soon < at ? soon : at;
	}
	return at;
}

/* Until something is to be done, or it is time; with the lock. */
static void wait(struct tracker *tracker)
{
	uint64_t at = wake_up_at(tracker);
	struct timespec until = {
		.tv_sec = (time_t) (at / SECOND), .tv_nsec = (long) (at % SECOND) * 1000,
	};

	if (at)
		(void) pthread_cond_timedwait(&tracker->wake, &tracker->lock, &until);
	else
		(void) pthread_cond_wait(&tracker->wake, &tracker->lock);
}

static void look_at_clock(struct tracker *tracker)
{
	uint64_t now = tracker_now();

	if (tracker->held && now >= tracker->hold_ends) {
		log_warning("changes were held for a checkpoint that did not come; they go on");
		end_hold(tracker);
	}
	if (tracker->next_look && now >= tracker->next_look) {
		if (!tracker->held)
			look_around(tracker);
		tracker->next_look = 0;
	}
	if (!tracker->next_look && (tracker->regions.n_armed > 0 || atomic_load(&tracker->refuse) ||
	                            tracker_has_pending(tracker)))
		tracker->next_look = now + SECOND;
}

static void carry_out(struct tracker *tracker, struct edit *edit)
{
	tracker_carry_out(tracker, edit);
	edit->done(edit);
}

static void refuse_edits(struct tracker *tracker)
{
	struct edit *edit, *next;

	for (edit = tracker->edits; edit; edit = next) {
		next = edit->next;
		edit->result = fail_plain(&edit->why, ESHUTDOWN, "the export is being stopped");
		edit->done(edit);
	}
	tracker->edits = NULL;
	tracker->edits_end = &tracker->edits;
}

/* One round of work, without the lock; what is left of `changes` comes back. */
static struct change *work(struct tracker *tracker, struct change *changes, struct edit *edit)
{
	if (changes)
		changes = arm(tracker, changes);
	if (edit)
		carry_out(tracker, edit);
	look_at_clock(tracker);
	return changes;
}

/* Whether there is more to do than to wait for others to leave the regions of `pressed`. */
static bool has_work(struct tracker *tracker)
{
	return tracker->stop || tracker->shrank || *find_edit(tracker) || (tracker->waiting && !tracker->held);
}

bool recorder_round(struct tracker *tracker)
{
	struct change *changes = take_waiting(tracker);
	struct edit *edit = next_edit(tracker);
	bool has_more, shrank = tracker->shrank;

	tracker->shrank = false;
	pthread_mutex_unlock(&tracker->lock);
	if (shrank)
		tracker_lose(tracker, "the device has shrunk");
	changes = work(tracker, changes, edit);
	pthread_mutex_lock(&tracker->lock);

	has_more = has_work(tracker);
	atomic_store(&tracker->pressed, changes != NULL);
	if (changes)
		put_back(tracker, changes);
	return has_more;
}

void *tracker_record(void *userdata)
{
	struct tracker *tracker = userdata;

	(void) pthread_setname_np(pthread_self(), "bitmaps");
	pthread_mutex_lock(&tracker->lock);
	while (!tracker->stop)
		if (!recorder_round(tracker))
			wait(tracker);
	refuse_edits(tracker);
	pthread_mutex_unlock(&tracker->lock);
	return NULL;
}
