/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tracker that is worked by hand, on a disk that loses power: no thread, no clock but the one here.
 *
 * What other threads would do meanwhile is done while the disk is written to: changes begin and end
 * between any two writes of the recorder.
 */
#pragma once

#include "dirty/tracker-state.h"
#include "disk.h"

#define HAND_CHANGES 24u
#define HAND_LANES 3u

struct hand_change {
	struct change change;
	bool begun;                     /* it waits, or is under way */
	bool under_way;
};

struct hand {
	struct disk disk;
	struct store_geometry geometry;
	int fd;                         /* stands for the device */
	struct tracker_settings settings;
	struct tracker *tracker;        /* NULL: not open */
	struct hand_change changes[HAND_CHANGES];
	bool closing;                   /* nobody begins any more */
	int flush_error;
	void (*made)(struct hand *hand, const struct change *change);   /* it may be on the medium */
};

/* An empty store on the disk, and nobody who has it open. */
void hand_init(struct hand *hand, const struct store_geometry *geometry, uint64_t seed);
void hand_deinit(struct hand *hand);

/* 0, or it failed. */
int hand_open(struct hand *hand, struct failure *why);

/* Ends what is under way, and leaves as far as the disk lets it. */
void hand_close(struct hand *hand);

/* Until there is nothing to do. */
void hand_work(struct hand *hand);

/* A change of [start, end); nothing happens while as many are under way as may be. */
void hand_begin(struct hand *hand, uint64_t start, uint64_t end);

/* Some change that is under way ends; false when there is none. */
bool hand_end(struct hand *hand);

/* Carried out; its result. */
int hand_edit(struct hand *hand, struct edit *edit);

/* So much later, in microseconds. */
void hand_later(uint64_t by);
