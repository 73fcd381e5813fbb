/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things are in a store: worked out from its geometry, and its first two blocks.
 */
#pragma once

#include "dirty/store.h"

#define STORE_VERSION 1u
#define STORE_PAGES_MAX (UINT32_C(1) << 22)     /* of a delta: 16 GiB of bits */

/* Fills in counts, offsets and sizes from store->geometry, which is right. */
void geometry_lay_out(struct store *store);

void geometry_encode(const struct store *store, uint8_t out[STORE_BLOCK]);

/* Fills in geometry, uuid and layout.  NULL, or what is wrong; *ret_code is -EBADMSG or, of
 * another version, -ENOTSUP then. */
const char *geometry_decode(const uint8_t in[STORE_BLOCK], struct store *store, int *ret_code);

/* Of one slot, in bytes from the start of the medium. */
static inline uint64_t page_slot_at(const struct store *store, uint32_t area, uint32_t page,
                                    unsigned slot)
{
	return store->areas_at + area * store->area_size + (page * UINT64_C(2) + slot) * STORE_BLOCK;
}
