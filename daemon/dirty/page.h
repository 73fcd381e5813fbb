/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One slot of a page in a store: a block with a header and the bits of DELTA_PAGE_GRANULES.
 */
#pragma once

#include <stdint.h>

#include "dirty/delta.h"

#define PAGE_SLOT_SIZE 4096u

enum page_slot {
	PAGE_EMPTY,                     /* never written, or by an older delta in the same place */
	PAGE_VALID,
	PAGE_DAMAGED,
};

void page_encode(uint8_t out[PAGE_SLOT_SIZE], const uint8_t uuid[16], uint64_t sequence,
                 uint64_t delta_id, uint32_t page, const uint64_t words[DELTA_PAGE_WORDS]);

/* The sequence of a slot that is not damaged; 0 of one that is empty for good. */
enum page_slot page_decode(const uint8_t in[PAGE_SLOT_SIZE], const uint8_t uuid[16],
                           uint64_t delta_id, uint32_t page, uint64_t *ret_sequence);

/* Of a valid one. */
void page_words(const uint8_t in[PAGE_SLOT_SIZE], uint64_t ret[DELTA_PAGE_WORDS]);
