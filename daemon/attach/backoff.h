/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long to wait before the next connection: at once after one that lasted, else twice as long as
 * before, from a fifth of a second up to ten.  Times are microseconds of monotonic_us().
 */
#pragma once

#include <stdint.h>

#define BACKOFF_FIRST UINT64_C(200000)
#define BACKOFF_MOST UINT64_C(10000000)
#define BACKOFF_LASTED UINT64_C(5000000)        /* from then on a connection was a good one */

struct backoff {
	uint64_t next;                  /* 0: BACKOFF_FIRST */
	uint64_t succeeded;             /* when a connection came about last */
};

static inline uint64_t backoff_after_failure(struct backoff *b)
{
	uint64_t wait = b->next ? b->next : BACKOFF_FIRST;

	b->next = wait * 2 < BACKOFF_MOST ? wait * 2 : BACKOFF_MOST;
	return wait;
}

static inline void backoff_after_success(struct backoff *b, uint64_t now)
{
	b->succeeded = now;
}

/* One that ends soon after it came about counts as a failure. */
static inline uint64_t backoff_after_loss(struct backoff *b, uint64_t now)
{
	if (now - b->succeeded < BACKOFF_LASTED)
		return backoff_after_failure(b);
	b->next = 0;
	return 0;
}
