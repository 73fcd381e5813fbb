/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/regions.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ARMED (1u << 31)

int regions_init(struct regions *regions, uint64_t size, unsigned shift, uint32_t limit,
                 struct failure *why)
{
	uint64_t n = (size + (UINT64_C(1) << shift) - 1) >> shift;

	*regions = (struct regions) { .shift = shift, .limit = limit };
	if (n >= UINT32_MAX)
		return fail_plain(why, EFBIG, "a region of %llu KiB is too small for this device",
		                  (1ull << shift) >> 10);
	regions->n = (uint32_t) n;
	regions->words = calloc(n + 1, sizeof *regions->words);
	regions->touched = calloc(n + 1, sizeof *regions->touched);
	regions->armed = calloc(limit, sizeof *regions->armed);
	if (regions->words && regions->touched && regions->armed)
		return 0;
	regions_deinit(regions);
	return fail(why, ENOMEM, "cannot keep an eye on %u regions", regions->n);
}

void regions_deinit(struct regions *regions)
{
	free(regions->words);
	free(regions->touched);
	free(regions->armed);
	*regions = (struct regions) { 0 };
}

static uint32_t first_of(const struct regions *regions, uint64_t start)
{
	return (uint32_t) (start >> regions->shift);
}

static uint32_t last_of(const struct regions *regions, uint64_t end)
{
	return (uint32_t) ((end - 1) >> regions->shift);
}

static void leave(struct regions *regions, uint32_t from, uint32_t to)
{
	for (uint32_t region = from; region < to; region++)
		atomic_fetch_sub(&regions->words[region], 1);
}

bool regions_enter(struct regions *regions, uint64_t start, uint64_t end)
{
	uint32_t first = first_of(regions, start), last = last_of(regions, end);
	uint8_t epoch = atomic_load_explicit(&regions->epoch, memory_order_relaxed);

	for (uint32_t region = first; region <= last; region++) {
		if (!(atomic_fetch_add(&regions->words[region], 1) & ARMED)) {
			leave(regions, first, region + 1);
			return false;
		}
		if (atomic_load_explicit(&regions->touched[region], memory_order_relaxed) != epoch)
			atomic_store_explicit(&regions->touched[region], epoch, memory_order_relaxed);
	}
	return true;
}

void regions_leave(struct regions *regions, uint64_t start, uint64_t end)
{
	leave(regions, first_of(regions, start), last_of(regions, end) + 1);
}

bool regions_hold(struct regions *regions, uint64_t start, uint64_t end, uint32_t *list,
                  uint32_t *n, uint32_t room)
{
	uint32_t first = first_of(regions, start), last = last_of(regions, end);

	if (last - first >= room - *n)
		return false;
	for (uint32_t region = first; region <= last; region++)
		if (!(atomic_fetch_add(&regions->words[region], 1) & ARMED))
			list[(*n)++] = region;
	return true;
}

bool region_is_armed(const struct regions *regions, uint32_t region)
{
	return atomic_load(&regions->words[region]) & ARMED;
}

bool region_disarm(struct regions *regions, uint32_t region)
{
	uint32_t idle = ARMED;

	return atomic_compare_exchange_strong(&regions->words[region], &idle, 0);
}

void region_arm(struct regions *regions, uint32_t region)
{
	atomic_fetch_or(&regions->words[region], ARMED);
}

unsigned region_age(const struct regions *regions, uint32_t region)
{
	return (uint8_t) (atomic_load(&regions->epoch) - atomic_load(&regions->touched[region]));
}

void regions_set_armed(struct regions *regions, const uint32_t *list, uint32_t n)
{
	uint8_t epoch = atomic_load(&regions->epoch);

	for (uint32_t i = 0; i < n; i++)
		if (!(atomic_load(&regions->words[list[i]]) & ARMED)) {
			atomic_store(&regions->touched[list[i]], epoch);
			atomic_fetch_or(&regions->words[list[i]], ARMED);
		}
	if (n > 0)
		memmove(regions->armed, list, n * sizeof *list);
	regions->n_armed = n;
}

void regions_forget(struct regions *regions)
{
	for (uint32_t i = 0; i < regions->n_armed; i++)
		atomic_fetch_and(&regions->words[regions->armed[i]], ~ARMED);
	regions->n_armed = 0;
}
