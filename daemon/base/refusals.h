/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many refusals the log lists, so that nobody can fill it: of each source a few in ten seconds,
 * and of all together a few more.  Those that are left out are counted, and told in one entry
 * for each source at the end of that time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/peer.h"

#define REFUSALS_OF_ONE 20u             /* listed, in */
#define REFUSALS_USEC (10 * USEC_PER_SEC)
#define REFUSALS_OF_ALL 200u
#define REFUSALS_SOURCES 256u           /* that are told apart; others are among "all" */

struct refusals {
	uint64_t until;                 /* CLOCK_MONOTONIC; 0: nothing has been refused lately */
	struct {
		struct peer source;
		unsigned n_listed;
		uint64_t n_left_out;
	} sources[REFUSALS_SOURCES];
	unsigned n_sources;
	unsigned n_listed;
	uint64_t n_left_out;            /* of sources that have no place here */
};

/* Whether the log may list one more of `source` at this time.  What is over must have been told. */
bool refusals_may_list(struct refusals *r, const struct peer *source, uint64_t now);

/* When refusals_tell() is due; UINT64_MAX: not now. */
uint64_t refusals_due(const struct refusals *r);

/* Tells what was left out, by `tell` (NULL: of many sources), and begins anew. */
void refusals_tell(struct refusals *r, void (*tell)(const struct peer *source, uint64_t n));
