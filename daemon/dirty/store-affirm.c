/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing again what a store was opened with.
 *
 * Who was killed after a failed sync leaves in the page cache what the medium may not have, and the
 * kernel reports that failure no second time: to sync alone is to be told that all is well.
 */
#include "dirty/store.h"

#include <string.h>

#include "dirty/page.h"
#include "dirty/record.h"
#include "dirty/store-geometry.h"

static int write_again(struct store *store, uint64_t at, uint8_t *buffer, size_t length)
{
	const struct medium_ops *ops = store->medium->ops;
	int r = ops->read(store->medium, at, buffer, length);

	return r == 0 ? ops->write(store->medium, at, buffer, length) : r;
}

static int write_catalogue_again(struct store *store)
{
	return write_again(store, store->catalogue_at + store->catalogue_slot * CATALOGUE_SIZE,
	                   store->buffer, CATALOGUE_SIZE);
}

static int write_record_again(struct store *store)
{
	if (!store->has_record)
		return 0;
	return write_again(store, store->record_at + store->record_slot * store->record_size,
	                   store->buffer, store->record_size);
}

/* Only what was announced last can have been on its way. */
static int write_page_again(struct store *store, uint32_t announced)
{
	uint32_t area = store->catalogue.recording, page = announced & ~PAGE_SLOT_BIT;
	unsigned slot = !!(announced & PAGE_SLOT_BIT);
	uint64_t counts;

	if (area == NO_AREA || store->announced_id != store->catalogue.deltas[area].id)
		return 0;
	counts = store->page_sequences[area][page];
	if (counts == 0 || (counts & 1) != slot)
		return 0;                       /* damaged: it will be mended */
	return write_again(store, page_slot_at(store, area, page, slot), store->buffer, PAGE_SLOT_SIZE);
}

int store_affirm(struct store *store, struct failure *why)
{
	int r = write_catalogue_again(store);

	if (r == 0)
		r = write_record_again(store);
	for (uint32_t i = 0; i < store->n_announced && r == 0; i++)
		r = write_page_again(store, store->announced[i]);
	if (r == 0)
		r = store->medium->ops->sync(store->medium);
	return r < 0 ? fail(why, -r, "cannot write the bitmap store") : 0;
}
