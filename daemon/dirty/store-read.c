/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the pages of a store, and telling what was torn by a crash from what is damaged.
 */
#include "dirty/store-scan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/page.h"
#include "dirty/record.h"
#include "dirty/store-geometry.h"
#include "dirty/store-mending.h"

#define PAIR_SIZE (2 * PAGE_SLOT_SIZE)
#define CHUNK_PAIRS 128u                /* 1 MiB */

static_assert(PAGE_SLOT_SIZE == STORE_BLOCK, "slots are blocks");

void store_read_blocks(struct store *store, uint64_t at, uint8_t *ret, size_t length)
{
	const struct medium_ops *ops = store->medium->ops;

	if (ops->read(store->medium, at, ret, length) == 0)
		return;
	for (size_t done = 0; done < length; done += STORE_BLOCK)
		if (ops->read(store->medium, at + done, ret + done, STORE_BLOCK) < 0)
			memset(ret + done, 0xff, STORE_BLOCK);
}

/* The reading of one delta. */
struct reading {
	struct store *store;
	struct delta *delta;
	struct store_recovery *recovery;
	struct area_scan *scan;
	bool records;                   /* it is the recording one */
};

/* Whether the record that counts says that this slot was being written. */
static bool was_announced(const struct reading *reading, uint32_t page, unsigned slot)
{
	const struct store *store = reading->store;
	uint32_t entry = page | (slot ? PAGE_SLOT_BIT : 0);

	if (!reading->records || !reading->recovery->unclean || !store->has_record ||
	    store->announced_id != reading->delta->id)
		return false;
	for (uint32_t i = 0; i < store->n_announced; i++)
		if (store->announced[i] == entry)
			return true;
	return false;
}

/* The page has to be written anew.  Of deltas that only are shown it stays so. */
static int mend_later(const struct reading *reading, uint32_t page, bool both)
{
	if (!reading->records)
		return 0;
	return mending_add(&reading->store->mending, reading->delta,
	                   page | (both ? PAGE_SLOT_BIT : 0));
}

/* Nobody knows what was in the page. */
static void lose_page(const struct reading *reading, uint32_t page)
{
	uint64_t first = (uint64_t) page * DELTA_PAGE_GRANULES;
	uint64_t end = first + DELTA_PAGE_GRANULES;

	if (end > reading->delta->n_granules)
		end = reading->delta->n_granules;
	delta_set(reading->delta, first, end);
	reading->recovery->n_torn_pages++;
}

static void load_slot(const struct reading *reading, uint32_t page, const uint8_t *slot)
{
	uint64_t words[DELTA_PAGE_WORDS];

	page_words(slot, words);
	delta_load_page(reading->delta, page, words);
}

/* The slot of the two that counts, of those that are valid; -1 if none is. */
static int newer(const enum page_slot kinds[2], const uint64_t sequences[2])
{
	if (kinds[0] == PAGE_VALID && kinds[1] == PAGE_VALID)
		return sequences[1] > sequences[0];
	if (kinds[0] == PAGE_VALID)
		return 0;
	return kinds[1] == PAGE_VALID ? 1 : -1;
}

static int read_damaged_page(const struct reading *reading, uint32_t page, const uint8_t *pair,
                             const enum page_slot kinds[2], int counts)
{
	bool both = kinds[0] == PAGE_DAMAGED && kinds[1] == PAGE_DAMAGED;
	unsigned slot = kinds[1] == PAGE_DAMAGED;

	reading->scan->n_damaged += both ? 2 : 1;
	if (both || !was_announced(reading, page, slot))
		lose_page(reading, page);
	else {
		reading->scan->n_announced++;
		if (counts >= 0)
			load_slot(reading, page, pair + (unsigned) counts * PAGE_SLOT_SIZE);
	}
	return mend_later(reading, page, both);
}

/* From both slots, which are not empty both. */
static int read_page(const struct reading *reading, uint32_t page, const uint8_t *pair)
{
	struct store *store = reading->store;
	enum page_slot kinds[2];
	uint64_t sequences[2];
	int counts;

	for (unsigned slot = 0; slot < 2; slot++) {
		kinds[slot] = page_decode(pair + slot * PAGE_SLOT_SIZE, store->uuid, reading->delta->id,
		                          page, &sequences[slot]);
		if (kinds[slot] != PAGE_DAMAGED && sequences[slot] > store->page_sequence)
			store->page_sequence = sequences[slot];
	}
	if (kinds[0] == PAGE_VALID && kinds[1] == PAGE_VALID && sequences[0] == sequences[1])
		kinds[0] = kinds[1] = PAGE_DAMAGED;     /* we never write such */
	counts = newer(kinds, sequences);
	if (counts >= 0) {
		reading->scan->n_written++;
		store->page_sequences[reading->delta->area][page] = sequences[counts] << 1 |
		                                                    (unsigned) counts;
	} else if (kinds[0] != PAGE_DAMAGED && kinds[1] == PAGE_DAMAGED) {
		/* The damaged one must be written first: as though the other counted. */
		store->page_sequences[reading->delta->area][page] = 1 << 1;
	}
	if (kinds[0] == PAGE_DAMAGED || kinds[1] == PAGE_DAMAGED)
		return read_damaged_page(reading, page, pair, kinds, counts);
	if (counts >= 0)
		load_slot(reading, page, pair + (unsigned) counts * PAGE_SLOT_SIZE);
	return 0;
}

/* The first page from this one on that may not be empty. */
static uint32_t skip_hole(const struct reading *reading, uint32_t page)
{
	const struct store *store = reading->store;
	uint64_t at = page_slot_at(store, reading->delta->area, page, 0);
	uint64_t found;

	if (!store->medium->ops->next_data ||
	    store->medium->ops->next_data(store->medium, at, &found) < 0)
		return page;
	if (found >= page_slot_at(store, reading->delta->area, store->n_pages, 0))
		return store->n_pages;
	return found <= at ? page : page + (uint32_t) ((found - at) / PAIR_SIZE);
}

static bool is_empty(const uint8_t pair[PAIR_SIZE])
{
	return pair[0] == 0 && memcmp(pair, pair + 1, PAIR_SIZE - 1) == 0;
}

static int read_delta(const struct reading *reading, uint8_t *chunk, uint32_t chunk_pairs)
{
	struct store *store = reading->store;
	uint32_t page = skip_hole(reading, 0);

	while (page < store->n_pages) {
		uint32_t n = store->n_pages - page < chunk_pairs ? store->n_pages - page : chunk_pairs;

		store_read_blocks(store, page_slot_at(store, reading->delta->area, page, 0), chunk,
		                  n * (size_t) PAIR_SIZE);
		for (uint32_t i = 0; i < n; i++) {
			const uint8_t *pair = chunk + i * (size_t) PAIR_SIZE;

			if (!is_empty(pair) && read_page(reading, page + i, pair) < 0)
				return -ENOMEM;
		}
		page = skip_hole(reading, page + n);
	}
	return 0;
}

static int read_area(struct store *store, uint32_t area, struct store_recovery *recovery,
                     struct store_scan *scan, uint8_t *chunk, uint32_t chunk_pairs)
{
	const struct reading reading = {
		.store = store,
		.delta = delta_new(store->catalogue.deltas[area].id, area, store->n_granules),
		.recovery = recovery,
		.scan = &scan->areas[area],
		.records = area == store->catalogue.recording,
	};

	store->deltas[area] = reading.delta;
	store->page_sequences[area] = calloc(store->n_pages, sizeof(uint64_t));
	if (!reading.delta || !store->page_sequences[area])
		return -ENOMEM;
	return read_delta(&reading, chunk, chunk_pairs);
}

int store_read_deltas(struct store *store, struct store_recovery *recovery, struct store_scan *scan)
{
	uint32_t chunk_pairs = store->n_pages < CHUNK_PAIRS ? store->n_pages : CHUNK_PAIRS;
	AUTO_FREE uint8_t *chunk = malloc(chunk_pairs * (size_t) PAIR_SIZE);

	if (!chunk)
		return -ENOMEM;
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (store->catalogue.deltas[area].id != 0 &&
		    read_area(store, area, recovery, scan, chunk, chunk_pairs) < 0)
			return -ENOMEM;
	return 0;
}
