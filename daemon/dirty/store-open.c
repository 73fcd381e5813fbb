/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading a store: geometry, catalogue, record; what was armed becomes dirty.  The pages are
 * read in store-read.c.
 */
#include "dirty/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/record.h"
#include "dirty/store-geometry.h"
#include "dirty/store-scan.h"

static const char *read_geometry_slot(struct store *store, unsigned slot, int *ret_code)
{
	uint8_t block[STORE_BLOCK];

	store_read_blocks(store, slot * STORE_BLOCK, block, sizeof block);
	return geometry_decode(block, store, ret_code);
}

/* The first that is right counts.  Either tells a version that we do not know from damage. */
static int read_geometry(struct store *store, struct store_scan *scan, struct failure *why)
{
	const char **wrong = scan->geometry_wrong;
	int codes[2];

	wrong[1] = read_geometry_slot(store, 1, &codes[1]);
	wrong[0] = read_geometry_slot(store, 0, &codes[0]);
	if (!wrong[0])
		return 0;
	/* A wrong one leaves what it had in the store, so the right one is read again. */
	if (!wrong[1])
		wrong[1] = read_geometry_slot(store, 1, &codes[1]);
	if (!wrong[1])
		return 0;
	return fail_plain(why, codes[0] == -ENOTSUP || codes[1] == -ENOTSUP ? ENOTSUP : EBADMSG,
	                  "this is no bitmap store: %s", wrong[0]);
}

static int read_catalogue(struct store *store, struct store_scan *scan, struct failure *why)
{
	AUTO_FREE struct catalogue *read = malloc(sizeof *read);
	bool found = false;

	if (!read)
		return fail(why, ENOMEM, "cannot read the bitmap store");
	for (unsigned slot = 0; slot < 2; slot++) {
		store_read_blocks(store, store->catalogue_at + slot * CATALOGUE_SIZE, store->buffer,
		                  CATALOGUE_SIZE);
		scan->catalogue_wrong[slot] = catalogue_decode(store->buffer, store->uuid, read);
		if (scan->catalogue_wrong[slot] ||
		    (found && read->sequence <= store->catalogue.sequence))
			continue;
		store->catalogue = *read;
		store->catalogue_slot = (uint8_t) slot;
		found = true;
	}
	if (!found)
		return fail_plain(why, EBADMSG, "both catalogues of the bitmap store are damaged: %s; %s",
		                  scan->catalogue_wrong[0], scan->catalogue_wrong[1]);
	return 0;
}

static void read_record(struct store *store, struct store_scan *scan)
{
	const struct record_limits limits = {
		.n_armed = store->geometry.arm_limit,
		.n_announced = STORE_PAGES_AT_ONCE,
		.n_regions = store->n_regions,
		.n_pages = store->n_pages,
	};

	for (unsigned slot = 0; slot < 2; slot++) {
		struct record record;

		store_read_blocks(store, store->record_at + slot * store->record_size, store->buffer,
		                  store->record_size);
		scan->record_wrong[slot] = record_check(store->buffer, store->record_size, store->uuid,
		                                        &limits, &record);
		if (scan->record_wrong[slot] ||
		    (store->has_record && record.sequence <= store->record_sequence))
			continue;
		record_arrays(store->buffer, &record, store->armed, store->announced);
		store->n_armed = record.n_regions;
		store->n_announced = record.n_pages;
		store->announced_id = record.delta_id;
		store->record_sequence = record.sequence;
		store->record_slot = (uint8_t) slot;
		store->has_record = true;
	}
}

/* Bytes that those dirty granules stand for; the device may end within the last one. */
static uint64_t dirty_bytes(const struct store *store, const struct delta *delta)
{
	unsigned shift = store->geometry.granule_shift;
	uint64_t bytes = delta_count(delta) << shift;

	if (delta_test(delta, store->n_granules - 1))
		bytes -= (store->n_granules << shift) - store->geometry.size;
	return bytes;
}

static void set_region(const struct store *store, struct delta *delta, uint32_t region)
{
	unsigned shift = store->geometry.region_shift - store->geometry.granule_shift;
	uint64_t first = (uint64_t) region << shift;
	uint64_t end = ((uint64_t) region + 1) << shift;

	delta_set(delta, first, end < store->n_granules ? end : store->n_granules);
}

static int copy_armed(const struct store *store, struct store_recovery *recovery)
{
	size_t size = store->n_armed * sizeof *recovery->regions;

	if (store->n_armed == 0)
		return 0;
	recovery->regions = malloc(size);
	if (!recovery->regions)
		return -ENOMEM;
	memcpy(recovery->regions, store->armed, size);
	recovery->n_armed = store->n_armed;
	return 0;
}

/* What was armed may have been written to, and no page says so. */
static void add_armed(struct store *store, struct store_recovery *recovery)
{
	uint32_t area = store->catalogue.recording;
	struct delta *delta = area == NO_AREA ? NULL : store->deltas[area];
	uint64_t before;

	recovery->record_missing = !store->has_record;
	if (!delta)
		return;
	before = dirty_bytes(store, delta);
	if (recovery->record_missing) {
		delta_set(delta, 0, store->n_granules);
		if (!store->mending.delta)
			store->mending.delta = delta_ref(delta);
		store->mending.everything = true;
	}
	for (uint32_t i = 0; i < store->n_armed; i++)
		set_region(store, delta, store->armed[i]);
	recovery->over_reported = dirty_bytes(store, delta) - before;
}

static int allocate(struct store *store)
{
	size_t size = store->record_size > CATALOGUE_SIZE ? store->record_size : CATALOGUE_SIZE;

	store->buffer = malloc(size);
	store->armed = calloc(store->geometry.arm_limit, sizeof *store->armed);
	store->announced = calloc(STORE_PAGES_AT_ONCE, sizeof *store->announced);
	return store->buffer && store->armed && store->announced ? 0 : -ENOMEM;
}

static int read_store(struct store *store, struct store_recovery *recovery, struct store_scan *scan,
                      struct failure *why)
{
	if (read_geometry(store, scan, why) < 0)
		return -why->code;
	if (allocate(store) < 0)
		return fail(why, ENOMEM, "cannot read the bitmap store");
	if (read_catalogue(store, scan, why) < 0)
		return -why->code;
	read_record(store, scan);
	recovery->unclean = store->catalogue.attached;
	if (store_read_deltas(store, recovery, scan) < 0)
		return fail(why, ENOMEM, "cannot read the bitmap store");
	store->synced_sequence = store->page_sequence;
	if (!recovery->unclean) {
		store->n_armed = store->n_announced = 0;
		return 0;
	}
	add_armed(store, recovery);
	return copy_armed(store, recovery) < 0 ? fail(why, ENOMEM, "cannot read the bitmap store") : 0;
}

int store_open_scan(struct store *store, struct medium *medium, struct store_recovery *ret_recovery,
                    struct store_scan *ret_scan, struct failure *why)
{
	int r = medium->ops->sync(medium);

	*store = (struct store) { .medium = medium };
	*ret_recovery = (struct store_recovery) { 0 };
	*ret_scan = (struct store_scan) { 0 };
	if (r < 0)
		return fail(why, -r, "cannot sync the bitmap store");
	r = read_store(store, ret_recovery, ret_scan, why);
	if (r < 0)
		store_close(store);
	return r;
}

int store_open(struct store *store, struct medium *medium, struct store_recovery *ret_recovery,
               struct failure *why)
{
	struct store_scan scan;

	return store_open_scan(store, medium, ret_recovery, &scan, why);
}
