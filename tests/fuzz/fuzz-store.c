/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lies behind the checksums of a bitmap store.  The first byte of an input says which unit
 * the rest is the inside of; it is sealed as the store would, so that the decoder sees it.
 */
#include "fuzz.h"

#include "base/text.h"
#include "dirty/catalogue.h"
#include "dirty/page.h"
#include "dirty/record.h"
#include "dirty/seal.h"

static const uint8_t uuid[16] = "a store's number";

/* A unit of `size` bytes with the input behind the sequence. */
static size_t seal(uint8_t *unit, size_t size, const char *magic, const uint8_t *at, size_t len)
{
	size_t room = size - SEAL_OWN, used;

	memset(unit, 0, size);
	memcpy(unit + SEAL_OWN, at, len < room ? len : room);
	used = SEAL_OWN + (len < room ? len : room);
	if (used < SEAL_SIZE)
		used = SEAL_SIZE;
	seal_unit(unit, used, magic, uuid, 7);
	return used;
}

static void require_name(const char *name)
{
	size_t len = strlen(name);

	REQUIRE(len > 0 && len <= BITMAP_NAME_MAX);
	REQUIRE(is_utf8((struct span) { (const uint8_t *) name, len }));
}

static void require_areas(const struct catalogue *catalogue, const struct area_set *set)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		REQUIRE(!area_in(set, area) || catalogue->deltas[area].id != 0);
}

static void require_catalogue(const struct catalogue *catalogue)
{
	REQUIRE(catalogue->n_bitmaps <= BITMAPS_MAX);
	REQUIRE(catalogue->recording == NO_AREA ||
	        (catalogue->recording < AREAS_MAX && catalogue->deltas[catalogue->recording].id));
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++) {
		const struct bitmap_entry *entry = &catalogue->bitmaps[i];

		require_name(entry->name);
		REQUIRE(entry->state <= BITMAP_LOST);
		require_areas(catalogue, &entry->shows);
		require_areas(catalogue, &entry->missed);
		for (unsigned j = 0; j < i; j++)
			REQUIRE(strcmp(entry->name, catalogue->bitmaps[j].name) != 0);
	}
}

/* There is one form of each catalogue: what is read is written as the same bytes, but for those of
 * the seal that nobody reads. */
static void fuzz_catalogue(const uint8_t *at, size_t len)
{
	static uint8_t unit[CATALOGUE_SIZE], again[CATALOGUE_SIZE];
	static struct catalogue catalogue;
	size_t used = seal(unit, sizeof unit, "NBDbmCAT", at, len);

	if (catalogue_decode(unit, uuid, &catalogue))
		return;
	require_catalogue(&catalogue);
	REQUIRE(catalogue_encode(&catalogue, uuid, again) >= used);
	REQUIRE(memcmp(unit + SEAL_SIZE, again + SEAL_SIZE, used - SEAL_SIZE) == 0);
}

static void fuzz_record(const uint8_t *at, size_t len)
{
	const struct record_limits limits = {
		.n_armed = 64, .n_announced = 16, .n_regions = 1000, .n_pages = 100,
	};
	static uint8_t unit[4096];
	uint32_t regions[64], pages[16];
	struct record record;

	(void) seal(unit, sizeof unit, "NBDbmREC", at, len);
	if (record_check(unit, sizeof unit, uuid, &limits, &record))
		return;
	REQUIRE(record.n_regions <= limits.n_armed && record.n_pages <= limits.n_announced);
	record_arrays(unit, &record, regions, pages);
	for (uint32_t i = 0; i < record.n_regions; i++)
		REQUIRE(regions[i] < limits.n_regions && (i == 0 || regions[i - 1] < regions[i]));
	for (uint32_t i = 0; i < record.n_pages; i++)
		REQUIRE((pages[i] & ~PAGE_SLOT_BIT) < limits.n_pages);
}

static void fuzz_page(const uint8_t *at, size_t len)
{
	static uint8_t unit[PAGE_SLOT_SIZE];
	uint64_t sequence;

	(void) seal(unit, sizeof unit, "NBDbmPAG", at, len);
	(void) page_decode(unit, uuid, 1, 0, &sequence);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	static void (*const units[])(const uint8_t *at, size_t len) = {
		fuzz_catalogue, fuzz_record, fuzz_page,
	};

	if (len > 0)
		units[at[0] % (sizeof units / sizeof *units)](at + 1, len - 1);
	return 0;
}
