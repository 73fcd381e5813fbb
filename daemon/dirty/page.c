/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/page.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "dirty/seal.h"

static const char magic[8] = { 'N', 'B', 'D', 'b', 'm', 'P', 'A', 'G' };

static_assert(SEAL_SIZE + DELTA_PAGE_WORDS * 8 == PAGE_SLOT_SIZE, "a page fills its slot");

void page_encode(uint8_t out[PAGE_SLOT_SIZE], const uint8_t uuid[16], uint64_t sequence,
                 uint64_t delta_id, uint32_t page, const uint64_t words[DELTA_PAGE_WORDS])
{
	struct emit own = emit_into(out + SEAL_OWN, SEAL_OWN_SIZE);

	emit_u64(&own, delta_id);
	emit_u32(&own, page);
	emit_zeroes(&own, 12);
	for (unsigned w = 0; w < DELTA_PAGE_WORDS; w++) {
		uint64_t be = htobe64(words[w]);

		memcpy(out + SEAL_SIZE + w * 8, &be, 8);
	}
	seal_unit(out, PAGE_SLOT_SIZE, magic, uuid, sequence);
}

static bool is_zero(const uint8_t *at, size_t length)
{
	return at[0] == 0 && memcmp(at, at + 1, length - 1) == 0;
}

enum page_slot page_decode(const uint8_t in[PAGE_SLOT_SIZE], const uint8_t uuid[16],
                           uint64_t delta_id, uint32_t page, uint64_t *ret_sequence)
{
	struct bytes own = bytes_over(in + SEAL_OWN, SEAL_OWN_SIZE);
	uint64_t id = take_u64(&own);
	size_t used;

	*ret_sequence = 0;
	if (is_zero(in, PAGE_SLOT_SIZE))
		return PAGE_EMPTY;
	if (seal_check(in, PAGE_SLOT_SIZE, magic, uuid, ret_sequence, &used) ||
	    used != PAGE_SLOT_SIZE || *ret_sequence == 0)
		return PAGE_DAMAGED;
	if (take_u32(&own) != page || id > delta_id)
		return PAGE_DAMAGED;
	return id < delta_id ? PAGE_EMPTY : PAGE_VALID;
}

void page_words(const uint8_t in[PAGE_SLOT_SIZE], uint64_t ret[DELTA_PAGE_WORDS])
{
	struct bytes bits = bytes_over(in + SEAL_SIZE, DELTA_PAGE_WORDS * 8);

	for (unsigned w = 0; w < DELTA_PAGE_WORDS; w++)
		ret[w] = take_u64(&bits);
}
