/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long the oldest operation has been under way, without a clock for each of them.
 *
 * Operations are counted by the turn in which they began; a turn ends whenever somebody asks.
 * So what is left of an ended turn began before its end, which is all that it takes to tell a
 * device that is stuck.  An operation costs two additions.
 */
#pragma once

#include <stdint.h>

#define AGE_TURNS 8u

struct ages {
	unsigned n[AGE_TURNS];          /* operations under way, by turn */
	uint64_t ended[AGE_TURNS];      /* when the turn ended; 0: it is the one that runs */
	unsigned now;
};

/* An operation begins; ages_end() wants what this returned. */
static inline uint8_t ages_begin(struct ages *ages)
{
	ages->n[ages->now]++;
	return (uint8_t) ages->now;
}

static inline void ages_end(struct ages *ages, uint8_t turn)
{
	ages->n[turn]--;
}

/*
 * Ends the turn at `time` (any clock, not 0).  Returns a time since when some operation has been
 * under way, as early as is known; 0 if there is none from earlier turns.
 */
uint64_t ages_turn(struct ages *ages, uint64_t time);
