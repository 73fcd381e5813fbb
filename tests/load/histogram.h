/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts of durations in nanoseconds, log-linear: 64 buckets to each power of two, so that a
 * value read back is less than 1 % off.  Never allocates.
 */
#pragma once

#include <stdint.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS];
	uint64_t n;
	uint64_t sum;
	uint64_t min;
	uint64_t max;
};

static inline unsigned histogram_bucket(uint64_t value)
{
	if (value < HISTOGRAM_STEPS)
		return (unsigned) value;
	unsigned shift = 63u - (unsigned) __builtin_clzll(value) - HISTOGRAM_BITS;

	return (shift << HISTOGRAM_BITS) + (unsigned) (value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->counts[histogram_bucket(value)] += 1;
	if (histogram->n == 0 || value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
	histogram->n += 1;
	histogram->sum += value;
}

/* The value that this share (0 to 1) of all values does not exceed; 0 when there is none. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);
