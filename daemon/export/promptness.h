/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether to do a read or write right here, in the ring's thread.
 *
 * A device without NOWAIT (zram, some bio-based drivers) makes io_uring hand each request
 * to a thread of its own, which costs more than the device does.  Where such a device
 * answers at once, blocking on it is the fastest way.  That is measured, request by request:
 * a device that takes its time gets its requests by way of the ring again, for a while.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct device;

struct promptness {
	bool possible;                  /* no NOWAIT: the ring would use a thread */
	unsigned debt;                  /* of slow answers, not yet paid by fast ones */
	uint64_t pause_until;           /* monotonic, ns: not to be tried before */
	uint64_t pause;                 /* ns: the last such pause; doubles */
	unsigned round;
	uint64_t spent;                 /* ns in this round */
};

void promptness_init(struct promptness *p, const struct device *dev);

/* Monotonic nanoseconds to pass to promptness_took(), or 0: use the ring.  `round`: the ring's;
 * in each there is a limit to what is done in place, since everybody else waits for it. */
uint64_t promptness_begin(struct promptness *p, unsigned round);

/* A transfer of `length` bytes that began at `began` is over. */
void promptness_took(struct promptness *p, uint64_t began, uint32_t length);
