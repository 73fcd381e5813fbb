/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time, as numbers. */
#pragma once

#include <stdint.h>
#include <time.h>

/* Since the machine started. */
static inline uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

/* Since 1970. */
static inline uint64_t real_time_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}
