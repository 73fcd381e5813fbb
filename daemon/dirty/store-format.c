/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a store.  The caller does so in a file under another name, and renames it.
 */
#include "dirty/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dirty/record.h"
#include "dirty/store-geometry.h"

static int write_geometry(const struct store *store)
{
	uint8_t block[STORE_BLOCK];
	int r;

	geometry_encode(store, block);
	r = store->medium->ops->write(store->medium, 0, block, sizeof block);
	if (r < 0)
		return r;
	return store->medium->ops->write(store->medium, STORE_BLOCK, block, sizeof block);
}

static int write_first_record(const struct store *store)
{
	const struct record record = { .sequence = 1 };
	uint8_t block[STORE_BLOCK] = { 0 };

	(void) record_encode(block, sizeof block, store->uuid, &record);
	return store->medium->ops->write(store->medium, store->record_at, block, sizeof block);
}

static int write_first_catalogue(const struct store *store, const char *identity)
{
	AUTO_FREE struct catalogue *catalogue = calloc(1, sizeof *catalogue);
	AUTO_FREE uint8_t *encoded = malloc(CATALOGUE_SIZE);
	size_t length;

	if (!catalogue || !encoded)
		return -ENOMEM;
	catalogue->sequence = 1;
	catalogue->next_id = 1;
	catalogue->recording = NO_AREA;
	catalogue->device_size = store->geometry.size;
	(void) snprintf(catalogue->identity, sizeof catalogue->identity, "%s", identity);
	length = catalogue_encode(catalogue, store->uuid, encoded);
	if (catalogue_decode(encoded, store->uuid, catalogue))
		return -EINVAL;                 /* the identity is no text */
	return store->medium->ops->write(store->medium, store->catalogue_at, encoded, length);
}

static void make_uuid(uint8_t ret[16])
{
	while (getrandom(ret, 16, 0) != 16)
		;
	ret[6] = (uint8_t) ((ret[6] & 0x0f) | 0x40);    /* version 4: random */
	ret[8] = (uint8_t) ((ret[8] & 0x3f) | 0x80);
}

int store_format(struct medium *medium, const struct store_geometry *geometry, const char *identity,
                 struct failure *why)
{
	AUTO_FREE struct store *store = calloc(1, sizeof *store);
	const char *wrong = store_geometry_wrong(geometry);
	int r;

	if (wrong)
		return fail_plain(why, EINVAL, "cannot make a bitmap store: %s", wrong);
	if (!store)
		return fail(why, ENOMEM, "cannot make a bitmap store");
	store->medium = medium;
	store->geometry = *geometry;
	make_uuid(store->uuid);
	geometry_lay_out(store);
	/* Catalogues and records are written in place from then on, and must not run out. */
	r = medium->ops->allocate(medium, 0, store->areas_at);
	if (r == 0)
		r = write_geometry(store);
	if (r == 0)
		r = write_first_record(store);
	if (r == 0)
		r = write_first_catalogue(store, identity);
	if (r == 0)
		r = medium->ops->sync(medium);
	return r < 0 ? fail(why, -r, "cannot write a new bitmap store") : 0;
}
