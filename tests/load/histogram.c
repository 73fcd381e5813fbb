/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads quantiles out of a histogram. */
#include "histogram.h"

/* The middle of a bucket: the inverse of histogram_bucket(). */
static uint64_t bucket_middle(unsigned bucket)
{
	if (bucket < 2 * HISTOGRAM_STEPS)
		return bucket;
	unsigned shift = (bucket >> HISTOGRAM_BITS) - 1;
	uint64_t low = (uint64_t) ((bucket & (HISTOGRAM_STEPS - 1)) | HISTOGRAM_STEPS) << shift;

	return low + (UINT64_C(1) << shift) / 2;
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
	uint64_t wanted = (uint64_t) ((double) histogram->n * share + 0.999999);
	uint64_t seen = 0;

	if (wanted == 0)
		wanted = 1;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->counts[i];
		if (seen < wanted)
			continue;
		uint64_t value = bucket_middle(i);

		if (value < histogram->min)
			return histogram->min;
		return value > histogram->max ? histogram->max : value;
	}
	return histogram->max;
}
