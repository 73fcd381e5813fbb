/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The threads' side of a tracker: begin, end, and the gate.
 *
 * A change counts itself into its lane first and looks at the gate then; who closes the gate
 * closes it first and counts then.  Both are sequentially consistent, so either the change sees
 * the gate closed and steps back, or it is counted.
 */
#include "dirty/tracker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dirty/tracker-state.h"

#define GATE_PATIENCE 10        /* seconds until changes under way are over */
#define LONG_REGIONS 16u        /* fewer than may be armed, so that any other change can be */

static uint64_t clock_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

uint64_t tracker_now(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

uint64_t tracker_real_time(void)
{
	return clock_us(CLOCK_REALTIME);
}

/* Changes */

static void enter_lane(struct tracker *tracker, struct change *change)
{
	atomic_fetch_add(&tracker->lanes[change->lane].n, 1);
	change->entered = true;
}

static void leave_lane(struct tracker *tracker, struct change *change)
{
	change->entered = false;
	atomic_fetch_sub(&tracker->lanes[change->lane].n, 1);
	if (!atomic_load(&tracker->gate) && !atomic_load(&tracker->pressed))
		return;
	pthread_mutex_lock(&tracker->lock);
	pthread_cond_signal(&tracker->quiet);
	pthread_cond_signal(&tracker->wake);
	pthread_mutex_unlock(&tracker->lock);
}

static void wait_for_recorder(struct tracker *tracker, struct change *change)
{
	change->next = NULL;
	pthread_mutex_lock(&tracker->lock);
	*tracker->waiting_end = change;
	tracker->waiting_end = &change->next;
	pthread_cond_signal(&tracker->wake);
	pthread_mutex_unlock(&tracker->lock);
}

bool tracker_is_long(const struct tracker *tracker, const struct change *change)
{
	unsigned shift = tracker->regions.shift;

	return (change->end >> shift) - (change->start >> shift) >= LONG_REGIONS;
}

void tracker_mark(struct tracker *tracker, struct delta *delta, const struct change *change)
{
	uint64_t granule = UINT64_C(1) << tracker->granule_shift;

	delta_set(delta, change->start >> tracker->granule_shift,
	          (change->end + granule - 1) >> tracker->granule_shift);
}

/* Notes the change.  False where a region is not armed. */
static bool note(struct tracker *tracker, struct delta *delta, struct change *change)
{
	if (change->recorded)
		return true;
	if (tracker_is_long(tracker, change) ||
	    !regions_enter(&tracker->regions, change->start, change->end))
		return false;
	change->tracked = true;
	tracker_mark(tracker, delta, change);
	return true;
}

/* With the gate open, or in the recorder's thread. */
static bool may_go(struct tracker *tracker, struct change *change)
{
	struct delta *delta = atomic_load_explicit(&tracker->recording, memory_order_acquire);

	if (!delta)
		return true;
	change->refused = atomic_load_explicit(&tracker->refuse, memory_order_relaxed);
	if (change->start >= tracker->settings.size)    /* it has grown: bitmaps follow at the next start */
		change->refused = EIO;
	return change->refused || note(tracker, delta, change);
}

bool tracker_begin(struct tracker *tracker, struct change *change)
{
	assert(!change->entered && change->start < change->end);

	change->refused = 0;
	change->tracked = change->recorded = false;
	if (change->end > tracker->settings.size)       /* a last sector that the device has in part */
		change->end = tracker->settings.size;
	enter_lane(tracker, change);
	if (!atomic_load(&tracker->gate) && may_go(tracker, change))
		return true;
	leave_lane(tracker, change);
	wait_for_recorder(tracker, change);
	return false;
}

bool tracker_grant(struct tracker *tracker, struct change *change)
{
	enter_lane(tracker, change);
	if (!may_go(tracker, change)) {
		leave_lane(tracker, change);
		return false;
	}
	change->granted(change);
	return true;
}

void tracker_end(struct tracker *tracker, struct change *change)
{
	assert(change->entered);

	if (change->tracked)
		regions_leave(&tracker->regions, change->start, change->end);
	change->tracked = false;
	leave_lane(tracker, change);
}

/* The gate */

static bool is_quiet(const struct tracker *tracker)
{
	for (unsigned i = 0; i < tracker->settings.n_lanes; i++)
		if (atomic_load(&tracker->lanes[i].n) > 0)
			return false;
	return true;
}

int tracker_close_gate(struct tracker *tracker)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += GATE_PATIENCE;
	atomic_store(&tracker->gate, true);
	pthread_mutex_lock(&tracker->lock);
	while (!is_quiet(tracker) && r == 0)
		r = pthread_cond_timedwait(&tracker->quiet, &tracker->lock, &until);
	if (is_quiet(tracker))
		r = 0;
	pthread_mutex_unlock(&tracker->lock);
	if (r != 0)
		tracker_open_gate(tracker);
	return -r;
}

void tracker_open_gate(struct tracker *tracker)
{
	atomic_store(&tracker->gate, false);
}

void tracker_device_shrank(struct tracker *tracker)
{
	pthread_mutex_lock(&tracker->lock);
	tracker->shrank = true;
	pthread_cond_signal(&tracker->wake);
	pthread_mutex_unlock(&tracker->lock);
}

void tracker_machine_stops(struct tracker *tracker)
{
	atomic_store(&tracker->machine_stops, true);
}

/* Edits */

void tracker_edit(struct tracker *tracker, struct edit *edit)
{
	edit->next = NULL;
	edit->result = 0;
	edit->why = (struct failure) { 0 };
	pthread_mutex_lock(&tracker->lock);
	*tracker->edits_end = edit;
	tracker->edits_end = &edit->next;
	pthread_cond_signal(&tracker->wake);
	pthread_mutex_unlock(&tracker->lock);
}

/* Start and end */

static void init_conditions(struct tracker *tracker)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&tracker->wake, &attr);
	pthread_cond_init(&tracker->quiet, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&tracker->lock, NULL);
	tracker->waiting_end = &tracker->waiting;
	tracker->edits_end = &tracker->edits;
}

static void release(struct tracker *tracker)
{
	bitmaps_drop(tracker);
	delta_unref(tracker->retired);
	if (tracker->has_store) {
		store_close(&tracker->store);
		file_medium_close(&tracker->file);
	}
	regions_deinit(&tracker->regions);
	pthread_cond_destroy(&tracker->wake);
	pthread_cond_destroy(&tracker->quiet);
	pthread_mutex_destroy(&tracker->lock);
	free(tracker->list);
	free(tracker->wanted);
	free(tracker->victims);
	free(tracker->lanes);
	free(tracker->seen);
	free(tracker->path);
	free(tracker->label);
	free(tracker->identity);
	free(tracker);
}

static struct lane *make_lanes(unsigned n)
{
	struct lane *lanes = aligned_alloc(_Alignof(struct lane), n * sizeof *lanes);

	if (lanes)
		memset(lanes, 0, n * sizeof *lanes);
	return lanes;
}

/* Signals are for the main thread. */
static int start_recorder(struct tracker *tracker)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&tracker->thread, NULL, tracker_record, tracker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static int start(struct tracker *tracker, struct failure *why)
{
	int r = tracker_attach(tracker, why);

	if (r < 0 || tracker->settings.medium)
		return r;
	r = start_recorder(tracker);
	if (r != 0) {
		tracker_detach(tracker);
		return fail(why, r, "cannot start the thread that keeps bitmaps");
	}
	tracker->runs = true;
	return 0;
}

int tracker_open(struct tracker **ret, const struct tracker_settings *settings, struct failure *why)
{
	struct tracker *tracker = calloc(1, sizeof *tracker);
	int r;

	if (!tracker)
		return fail(why, ENOMEM, "cannot keep bitmaps");
	init_conditions(tracker);
	tracker->settings = *settings;
	tracker->file.fd = -1;
	tracker->next_id = 2;
	tracker->label = strdup(settings->label);
	tracker->identity = strdup(settings->identity);
	tracker->path = strdup(settings->path);
	tracker->lanes = make_lanes(settings->n_lanes);
	tracker->seen = calloc(1, sizeof *tracker->seen);
	tracker->granule_shift = settings->granule_shift;
	tracker->settings.label = tracker->label;
	tracker->settings.identity = tracker->identity;
	tracker->settings.path = tracker->path;
	if (tracker->label && tracker->path && tracker->identity && tracker->lanes && tracker->seen)
		r = start(tracker, why);
	else
		r = fail(why, ENOMEM, "cannot keep bitmaps");
	tracker->settings.names = NULL;         /* a later store begins without */
	if (r < 0)
		release(tracker);
	else
		*ret = tracker;
	return r;
}

void tracker_close(struct tracker *tracker)
{
	if (!tracker)
		return;
	pthread_mutex_lock(&tracker->lock);
	tracker->stop = true;
	pthread_cond_signal(&tracker->wake);
	pthread_mutex_unlock(&tracker->lock);
	if (tracker->runs)
		pthread_join(tracker->thread, NULL);
	assert(is_quiet(tracker) && !tracker->waiting);
	if (tracker->shrank)
		tracker_lose(tracker, "the device has shrunk");
	tracker_detach(tracker);
	release(tracker);
}
