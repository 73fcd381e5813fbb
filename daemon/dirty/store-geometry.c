/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/store-geometry.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "dirty/record.h"
#include "dirty/seal.h"

static const char magic[8] = { 'N', 'B', 'D', 'b', 'm', 'G', 'E', 'O' };

/* Without overflow: size is at least 1. */
static uint64_t pieces(uint64_t size, unsigned shift)
{
	return ((size - 1) >> shift) + 1;
}

const char *store_geometry_wrong(const struct store_geometry *geometry)
{
	if (geometry->granule_shift < 12 || geometry->granule_shift > 24)
		return "a granule is from 4 KiB to 16 MiB";
	if (geometry->region_shift < 16 || geometry->region_shift > 34)
		return "a region is from 64 KiB to 16 GiB";
	if (geometry->region_shift < geometry->granule_shift)
		return "a region is at least as large as a granule";
	if (geometry->arm_limit < 64 || geometry->arm_limit > 65536)
		return "the arm limit is from 64 to 65536 regions";
	if (geometry->size == 0 || geometry->size > INT64_MAX)
		return "the device has no size that can be";
	if (pieces(geometry->size, geometry->granule_shift) >
	    (uint64_t) STORE_PAGES_MAX * DELTA_PAGE_GRANULES)
		return "the device is too large for granules of this size";
	if (pieces(geometry->size, geometry->region_shift) > UINT32_MAX)
		return "the device is too large for regions of this size";
	return NULL;
}

static uint64_t whole_blocks(uint64_t bytes)
{
	return (bytes + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;
}

void geometry_lay_out(struct store *store)
{
	const struct store_geometry *geometry = &store->geometry;

	store->n_granules = pieces(geometry->size, geometry->granule_shift);
	store->n_pages = delta_pages_for(store->n_granules);
	store->n_regions = (uint32_t) pieces(geometry->size, geometry->region_shift);
	store->catalogue_at = 2 * STORE_BLOCK;
	store->record_at = store->catalogue_at + 2 * CATALOGUE_SIZE;
	store->record_size = whole_blocks(record_bytes(geometry->arm_limit, STORE_PAGES_AT_ONCE));
	store->areas_at = store->record_at + 2 * store->record_size;
	store->area_size = store->n_pages * UINT64_C(2) * STORE_BLOCK;
}

/* Behind the header: what geometry_lay_out() works out, for programs that want no arithmetic. */
static void emit_layout(struct emit *out, const struct store *store)
{
	emit_u64(out, store->geometry.size);
	emit_u64(out, store->catalogue_at);
	emit_u64(out, CATALOGUE_SIZE);
	emit_u64(out, store->record_at);
	emit_u64(out, store->record_size);
	emit_u64(out, store->areas_at);
	emit_u64(out, store->area_size);
	emit_u32(out, AREAS_MAX);
	emit_u32(out, store->n_pages);
	emit_u32(out, DELTA_PAGE_GRANULES);
	emit_u32(out, STORE_PAGES_AT_ONCE);
}

void geometry_encode(const struct store *store, uint8_t out[STORE_BLOCK])
{
	struct emit own = emit_into(out + SEAL_OWN, SEAL_OWN_SIZE);
	struct emit body = emit_into(out + SEAL_SIZE, STORE_BLOCK - SEAL_SIZE);

	memset(out, 0, STORE_BLOCK);
	emit_u32(&own, STORE_VERSION);
	emit_u8(&own, (uint8_t) store->geometry.granule_shift);
	emit_u8(&own, (uint8_t) store->geometry.region_shift);
	emit_u16(&own, 0);
	emit_u32(&own, store->geometry.arm_limit);
	emit_layout(&body, store);
	seal_unit(out, SEAL_SIZE + body.len, magic, store->uuid, 0);
}

const char *geometry_decode(const uint8_t in[STORE_BLOCK], struct store *store, int *ret_code)
{
	struct bytes own = bytes_over(in + SEAL_OWN, SEAL_OWN_SIZE);
	uint8_t again[STORE_BLOCK];
	uint64_t sequence, size = 0;
	size_t used;
	const char *wrong = seal_check(in, STORE_BLOCK, magic, NULL, &sequence, &used);

	*ret_code = -EBADMSG;
	if (wrong)
		return wrong;
	if (take_u32(&own) != STORE_VERSION) {
		*ret_code = -ENOTSUP;
		return "it is of a version that this program does not know";
	}
	if (used >= SEAL_SIZE + sizeof size)
		memcpy(&size, in + SEAL_SIZE, sizeof size);
	store->geometry.granule_shift = take_u8(&own);
	store->geometry.region_shift = take_u8(&own);
	(void) take_u16(&own);
	store->geometry.arm_limit = take_u32(&own);
	store->geometry.size = be64toh(size);
	wrong = store_geometry_wrong(&store->geometry);
	if (wrong)
		return wrong;
	memcpy(store->uuid, in + 8, sizeof store->uuid);
	geometry_lay_out(store);
	geometry_encode(store, again);
	return memcmp(in, again, used) == 0 ? NULL : "its offsets are not those of its sizes";
}
