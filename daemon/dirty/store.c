/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is written to an open store, and in which order.  Reading is in store-open.c.
 */
#include "dirty/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/page.h"
#include "dirty/record.h"
#include "dirty/store-geometry.h"
#include "dirty/store-mending.h"

static int failed(int r, const char *what, struct failure *why)
{
	return fail_plain(why, EIO, "cannot write %s of the bitmap store: %s", what, strerror(-r));
}

static int refuse_unsure(struct failure *why)
{
	return fail_plain(why, EIO, "the catalogue of the bitmap store could not be written");
}

static int refuse_area(struct failure *why)
{
	return fail_plain(why, EIO, "a part of the bitmap store has been lost before it was used");
}

static uint64_t recording_id(const struct store *store)
{
	uint32_t area = store->catalogue.recording;

	return area == NO_AREA ? 0 : store->catalogue.deltas[area].id;
}

/* A slot that does not count may be damaged now.  The record that announced it still stands: it
 * is written before another one does.  Without memory for that, it is dirty as a whole after an
 * unclean end. */
static void distrust_page(struct store *store, uint32_t area, uint32_t page)
{
	const struct store_mending *mending = &store->mending;

	if (area != store->catalogue.recording || !store->deltas[area])
		return;
	for (size_t i = 0; i < mending->n_pages; i++)
		if ((mending->pages[i] & ~PAGE_SLOT_BIT) == page)
			return;
	(void) mending_add(&store->mending, store->deltas[area], page);
}

/* What was written since the last sync may be lost, although it can still be read: the slots
 * that counted before do again, and areas in no catalogue yet have to be prepared anew. */
static void take_back_pages(struct store *store)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		uint64_t *sequences;

		if (store->catalogue.deltas[area].id == 0)
			free_pointer(&store->page_sequences[area]);
		sequences = store->page_sequences[area];
		for (uint32_t page = 0; sequences && page < store->n_pages; page++) {
			if (sequences[page] >> 1 <= store->synced_sequence)
				continue;
			sequences[page] ^= 1;
			distrust_page(store, area, page);
		}
	}
	store->synced_sequence = store->page_sequence;
}

static int sync_medium(struct store *store)
{
	int r = store->medium->ops->sync(store->medium);

	if (r < 0) {
		take_back_pages(store);
		return r;
	}
	store->unsynced = false;
	store->synced_sequence = store->page_sequence;
	return 0;
}

int store_sync(struct store *store, struct failure *why)
{
	int r = sync_medium(store);

	return r < 0 ? failed(r, "the pages", why) : 0;
}

/* The slot that does not count; it does from here on, in memory. */
static int write_page(struct store *store, struct delta *delta, uint32_t page, struct failure *why)
{
	uint64_t *counts = &store->page_sequences[delta->area][page];
	unsigned slot = *counts ? !(*counts & 1) : 0;
	uint64_t words[DELTA_PAGE_WORDS];
	uint8_t block[PAGE_SLOT_SIZE];
	int r;

	(void) delta_copy_page(delta, page, words);
	store->page_sequence++;
	page_encode(block, store->uuid, store->page_sequence, delta->id, page, words);
	store->unsynced = true;
	r = store->medium->ops->write(store->medium, page_slot_at(store, delta->area, page, slot),
	                              block, sizeof block);
	if (r < 0) {
		distrust_page(store, delta->area, page);
		return failed(r, "a page", why);
	}
	*counts = store->page_sequence << 1 | slot;
	return 0;
}

/* The pages that were damaged, or with `both` alone those of which no slot was left. */
static int mend_pages(struct store *store, bool both, struct failure *why)
{
	const struct store_mending *mending = &store->mending;

	for (size_t i = 0; i < mending->n_pages; i++) {
		uint32_t page = mending->pages[i];

		if (both && !(page & PAGE_SLOT_BIT))
			continue;
		if (write_page(store, mending->delta, page & ~PAGE_SLOT_BIT, why) < 0)
			return -why->code;
	}
	return store_sync(store, why);
}

static int mend_everything(struct store *store, struct failure *why)
{
	for (uint32_t page = 0; page < store->n_pages; page++)
		if (write_page(store, store->mending.delta, page, why) < 0)
			return -why->code;
	return store_sync(store, why);
}

static int put_record(struct store *store, const struct store_record *record, struct failure *why);

/*
 * Before anything else is written after recovery.  A slot that was found damaged must not be
 * announced, nor what was announced forgotten, while it still is: it would fall back to an older
 * one.  The record stands meanwhile, so a crash in here changes nothing.
 */
static int mend(struct store *store, struct failure *why)
{
	int r = 0;

	if (store->mending.delta && store->mending.delta->id != recording_id(store))
		mending_clear(&store->mending);         /* given up */
	if (store->mending.delta && store->mending.everything)
		r = mend_everything(store, why);
	else if (store->mending.delta) {
		r = mend_pages(store, false, why);
		/* One slot of each is right now: should the rest fail, that is not written over. */
		if (r == 0 && mending_keep_both(&store->mending))
			r = mend_pages(store, true, why);
	}
	if (r < 0)
		return r;
	mending_clear(&store->mending);
	return store->has_record ? 0 : put_record(store, &(struct store_record) { 0 }, why);
}

/* Whatever is about to be written may rely on all that was written before. */
static int settle(struct store *store, struct failure *why)
{
	if ((store->mending.delta || !store->has_record) && mend(store, why) < 0)
		return -why->code;
	return store->unsynced ? store_sync(store, why) : 0;
}

/* The unit in the buffer goes to the slot that does not count, and is synced; then to the other
 * one, so that both say the same.  That copy may fail: the next unit goes there first. */
static int write_twice(struct store *store, uint64_t at, uint64_t slot_size, size_t length,
                       uint8_t *slot)
{
	const struct medium_ops *ops = store->medium->ops;
	unsigned other = !*slot;
	int r = ops->write(store->medium, at + other * slot_size, store->buffer, length);

	if (r == 0)
		r = sync_medium(store);
	if (r < 0)
		return r;
	(void) ops->write(store->medium, at + *slot * slot_size, store->buffer, length);
	*slot = (uint8_t) other;
	return 0;
}

/* Then it matters not what is in the deltas, and the medium may be failing. */
static bool trusts_nothing(const struct catalogue *next)
{
	for (unsigned i = 0; i < next->n_bitmaps; i++)
		if (next->bitmaps[i].state != BITMAP_GAP && next->bitmaps[i].state != BITMAP_LOST)
			return false;
	return next->recording == NO_AREA;
}

/* Whether all its deltas are where the medium has them, or will at the next sync. */
static bool has_areas(const struct store *store, const struct catalogue *next)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (next->deltas[area].id != 0 && !store->page_sequences[area])
			return false;
	return true;
}

int store_commit(struct store *store, const struct catalogue *next, struct failure *why)
{
	AUTO_FREE struct catalogue *copy = malloc(sizeof *copy);
	size_t length;
	const char *wrong;
	int r;

	if (!copy)
		return fail(why, ENOMEM, "cannot commit to the bitmap store");
	*copy = *next;
	copy->sequence = store->catalogue.sequence + 1;
	length = catalogue_encode(copy, store->uuid, store->buffer);
	wrong = catalogue_decode(store->buffer, store->uuid, copy);
	if (wrong)
		return fail_plain(why, EINVAL, "cannot commit to the bitmap store: %s", wrong);
	if (!has_areas(store, next))
		return refuse_area(why);
	if (!store->unsure && !trusts_nothing(next) && settle(store, why) < 0)
		return -EIO;
	/* Mending has used the buffer. */
	length = catalogue_encode(copy, store->uuid, store->buffer);
	r = write_twice(store, store->catalogue_at, CATALOGUE_SIZE, length, &store->catalogue_slot);
	store->unsure = r < 0;
	if (r < 0)
		return failed(r, "the catalogue", why);
	store->catalogue = *copy;
	return 0;
}

/* Each page with the slot that it will go to. */
static void announce(struct store *store, const struct store_record *record)
{
	const uint64_t *sequences = record->n_pages
		? store->page_sequences[store->catalogue.recording] : NULL;

	for (uint32_t i = 0; i < record->n_pages; i++) {
		uint64_t counts = sequences[record->pages[i]];
		bool second = counts && !(counts & 1);

		store->announced[i] = record->pages[i] | (second ? PAGE_SLOT_BIT : 0);
	}
	store->n_announced = record->n_pages;
	store->announced_id = recording_id(store);
}

/* Pads with zeroes to whole blocks. */
static size_t encode_record(struct store *store, const struct store_record *record)
{
	const struct record whole = {
		.sequence = store->record_sequence + 1,
		.delta_id = store->announced_id,
		.n_regions = record->n_regions,
		.n_pages = store->n_announced,
		.regions = record->regions,
		.pages = store->announced,
	};
	size_t used = record_encode(store->buffer, store->record_size, store->uuid, &whole);
	size_t padded = (used + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;

	memset(store->buffer + used, 0, padded - used);
	return padded;
}

static int put_record(struct store *store, const struct store_record *record, struct failure *why)
{
	int r;

	announce(store, record);
	r = write_twice(store, store->record_at, store->record_size, encode_record(store, record),
	                &store->record_slot);
	if (r < 0) {
		store->n_announced = 0;
		return failed(r, "a record", why);
	}
	store->has_record = true;
	store->record_sequence++;
	if (record->n_regions)
		memmove(store->armed, record->regions, record->n_regions * sizeof *store->armed);
	store->n_armed = record->n_regions;
	return 0;
}

int store_write_record(struct store *store, const struct store_record *record, struct failure *why)
{
	assert(record->n_regions <= store->geometry.arm_limit);
	assert(record->n_pages <= STORE_PAGES_AT_ONCE);
	assert(record->n_pages == 0 || store->catalogue.recording != NO_AREA);

	if (store->unsure)
		return refuse_unsure(why);
	if (settle(store, why) < 0)
		return -EIO;
	return put_record(store, record, why);
}

static int order_of_pages(const void *a, const void *b)
{
	uint32_t page = *(const uint32_t *) a & ~PAGE_SLOT_BIT;
	uint32_t other = *(const uint32_t *) b & ~PAGE_SLOT_BIT;

	return (page > other) - (page < other);
}

/* With the slot that it would be written to now. */
static bool is_announced(const struct store *store, const struct delta *delta, uint32_t page)
{
	uint64_t counts = store->page_sequences[delta->area][page];
	const uint32_t *found = bsearch(&page, store->announced, store->n_announced, sizeof page,
	                                order_of_pages);

	return found && store->announced_id == delta->id &&
	       !!(*found & PAGE_SLOT_BIT) == (counts && !(counts & 1));
}

int store_write_pages(struct store *store, struct delta *delta, const uint32_t *pages, uint32_t n,
                      struct failure *why)
{
	bool recording = delta->area == store->catalogue.recording &&
	                 delta->id == recording_id(store);

	if (store->unsure)
		return refuse_unsure(why);
	if (!store->page_sequences[delta->area])
		return refuse_area(why);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t words[DELTA_PAGE_WORDS];

		assert(!recording || (!store->mending.delta && is_announced(store, delta, pages[i])));
		if (!store->page_sequences[delta->area][pages[i]] &&
		    !delta_copy_page(delta, pages[i], words))
			continue;               /* clean, as it is there */
		if (write_page(store, delta, pages[i], why) < 0)
			return -why->code;
	}
	return 0;
}

int store_prepare_area(struct store *store, uint32_t area, struct failure *why)
{
	uint64_t at = page_slot_at(store, area, 0, 0);
	int r;

	assert(area < AREAS_MAX && store->catalogue.deltas[area].id == 0);
	if (store->unsure)
		return refuse_unsure(why);
	free(store->page_sequences[area]);
	store->page_sequences[area] = calloc(store->n_pages, sizeof(uint64_t));
	if (!store->page_sequences[area])
		return fail(why, ENOMEM, "cannot make room in the bitmap store");
	store->unsynced = true;
	r = store->medium->ops->clear(store->medium, at, store->area_size);
	if (r == 0)
		r = store->medium->ops->allocate(store->medium, at, store->area_size);
	if (r == 0)
		return 0;
	/* What was allocated until then is of no use. */
	(void) store->medium->ops->clear(store->medium, at, store->area_size);
	return fail(why, -r, "cannot make room for %llu more bytes in the bitmap store",
	            (unsigned long long) store->area_size);
}

void store_clear_areas(struct store *store, const struct area_set *areas)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		if (!area_in(areas, area))
			continue;
		assert(store->catalogue.deltas[area].id == 0);
		if (!store->unsure)
			(void) store->medium->ops->clear(store->medium, page_slot_at(store, area, 0, 0),
			                                 store->area_size);
		free_pointer(&store->page_sequences[area]);
		delta_unref(store->deltas[area]);
		store->deltas[area] = NULL;
	}
}

void store_close(struct store *store)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		delta_unref(store->deltas[area]);
		free(store->page_sequences[area]);
	}
	mending_clear(&store->mending);
	free(store->armed);
	free(store->announced);
	free(store->buffer);
	*store = (struct store) { 0 };
}
