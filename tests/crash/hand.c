/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hand.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/attr.h"
#include "dirty/store-geometry.h"

static uint64_t now = UINT64_C(1000000000);     /* microseconds */
static struct hand *the_hand;                   /* whose threads are waited for */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void) clock;
	*ret = (struct timespec) {
		.tv_sec = (time_t) (now / 1000000), .tv_nsec = (long) (now % 1000000) * 1000,
	};
	return 0;
}

/* The gate is closed, and the recorder waits until nothing is under way. */
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
	bool any;

	(void) cond, (void) until;
	pthread_mutex_unlock(mutex);
	any = hand_end(the_hand);
	pthread_mutex_lock(mutex);
	return any ? 0 : ETIMEDOUT;
}

void hand_later(uint64_t by)
{
	now += by;
}

static int flush(void *userdata)
{
	struct hand *hand = userdata;

	return hand->flush_error;
}

static void changed(void *userdata)
{
	(void) userdata;
}

void hand_init(struct hand *hand, const struct store_geometry *geometry, uint64_t seed)
{
	struct store sizes = { .geometry = *geometry };
	struct failure why = { 0 };

	geometry_lay_out(&sizes);
	hand->geometry = *geometry;
	disk_init(&hand->disk, sizes.areas_at + (uint64_t) sizes.n_pages * 2 * STORE_BLOCK * AREAS_MAX,
	          seed);
	hand->fd = memfd_create("device", MFD_CLOEXEC);
	hand->disk.quiet = true;
	if (hand->fd < 0 || store_format(&hand->disk.medium, geometry, "a device", &why) < 0) {
		printf("cannot make a disk: %s\n", why.text);
		exit(2);
	}
	hand->disk.quiet = false;
	hand->settings = (struct tracker_settings) {
		.label = "disk", .path = "(simulated)", .device = "(simulated)", .device_fd = hand->fd,
		.identity = "a device", .size = geometry->size, .granule_shift = geometry->granule_shift,
		.region_shift = geometry->region_shift, .arm_limit = geometry->arm_limit,
		.cold_seconds = 2, .n_lanes = HAND_LANES, .flush = flush, .changed = changed,
		.userdata = hand, .medium = &hand->disk.medium,
	};
	the_hand = hand;
}

void hand_deinit(struct hand *hand)
{
	disk_deinit(&hand->disk);
	close(hand->fd);
}

int hand_open(struct hand *hand, struct failure *why)
{
	*why = (struct failure) { 0 };
	return tracker_open(&hand->tracker, &hand->settings, why);
}

void hand_work(struct hand *hand)
{
	struct tracker *tracker = hand->tracker;
	bool more;

	do {
		pthread_mutex_lock(&tracker->lock);
		more = recorder_round(tracker);
		pthread_mutex_unlock(&tracker->lock);
	} while (more);
}

static void go_on(struct hand_change *it)
{
	struct hand *hand = the_hand;

	it->under_way = true;
	if (!it->change.refused)
		hand->made(hand, &it->change);
}

static void granted(struct change *change)
{
	go_on(container_of(change, struct hand_change, change));
}

void hand_begin(struct hand *hand, uint64_t start, uint64_t end)
{
	struct hand_change *it = hand->changes;

	while (it < hand->changes + HAND_CHANGES && it->begun)
		it++;
	if (it == hand->changes + HAND_CHANGES || !hand->tracker ||
	    hand->closing)
		return;
	*it = (struct hand_change) {
		.begun = true,
		.change = {
			.start = start, .end = end, .granted = granted,
			.lane = (unsigned) disk_random(&hand->disk, HAND_LANES),
		},
	};
	if (tracker_begin(hand->tracker, &it->change))
		go_on(it);
}

bool hand_end(struct hand *hand)
{
	size_t first = disk_random(&hand->disk, HAND_CHANGES);

	for (size_t i = 0; i < HAND_CHANGES; i++) {
		struct hand_change *it = &hand->changes[(first + i) % HAND_CHANGES];

		if (!it->under_way)
			continue;
		it->under_way = it->begun = false;
		tracker_end(hand->tracker, &it->change);
		return true;
	}
	return false;
}

static bool any_waits(const struct hand *hand)
{
	for (size_t i = 0; i < HAND_CHANGES; i++)
		if (hand->changes[i].begun)
			return true;
	return false;
}

void hand_close(struct hand *hand)
{
	hand->closing = true;
	while (any_waits(hand)) {
		hand_work(hand);
		hand_later(100000);
		while (hand_end(hand))
			;
	}
	tracker_close(hand->tracker);
	hand->tracker = NULL;
	hand->closing = false;
}

static void on_done(struct edit *edit)
{
	edit->next = edit;              /* a sign */
}

int hand_edit(struct hand *hand, struct edit *edit)
{
	edit->done = on_done;
	tracker_edit(hand->tracker, edit);
	while (edit->next != edit)
		hand_work(hand);
	return edit->result;
}
