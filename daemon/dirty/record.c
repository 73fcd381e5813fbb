/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/record.h"

#include <assert.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "dirty/seal.h"

static const char magic[8] = { 'N', 'B', 'D', 'b', 'm', 'R', 'E', 'C' };

size_t record_encode(uint8_t *out, size_t size, const uint8_t uuid[16],
                     const struct record *record)
{
	size_t used = record_bytes(record->n_regions, record->n_pages);
	struct emit own = emit_into(out + SEAL_OWN, SEAL_OWN_SIZE);
	struct emit body = emit_into(out + SEAL_SIZE, size - SEAL_SIZE);

	emit_u64(&own, record->delta_id);
	emit_u32(&own, record->n_regions);
	emit_u32(&own, record->n_pages);
	emit_zeroes(&own, 8);
	for (uint32_t i = 0; i < record->n_regions; i++)
		emit_u32(&body, record->regions[i]);
	for (uint32_t i = 0; i < record->n_pages; i++)
		emit_u32(&body, record->pages[i]);
	assert(emit_fits(&body));
	seal_unit(out, used, magic, uuid, record->sequence);
	return used;
}

/* Whether `n` numbers, without what `bit` masks out, ascend and stay below `end`. */
static bool ascend(struct bytes *in, uint32_t n, uint32_t bit, uint32_t end)
{
	uint64_t least = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t number = take_u32(in) & ~bit;

		if (number < least || number >= end)
			return false;
		least = (uint64_t) number + 1;
	}
	return !in->overrun;
}

const char *record_check(const uint8_t *in, size_t size, const uint8_t uuid[16],
                         const struct record_limits *limits, struct record *ret)
{
	struct bytes own = bytes_over(in + SEAL_OWN, SEAL_OWN_SIZE);
	struct bytes body;
	size_t used;
	const char *wrong;

	*ret = (struct record) { 0 };
	wrong = seal_check(in, size, magic, uuid, &ret->sequence, &used);
	if (wrong)
		return wrong;
	ret->delta_id = take_u64(&own);
	ret->n_regions = take_u32(&own);
	ret->n_pages = take_u32(&own);
	if (ret->n_regions > limits->n_armed || ret->n_pages > limits->n_announced)
		return "it has more entries than there may be";
	if (used != record_bytes(ret->n_regions, ret->n_pages))
		return "its length is not that of its entries";
	body = bytes_over(in + SEAL_SIZE, used - SEAL_SIZE);
	if (!ascend(&body, ret->n_regions, 0, limits->n_regions))
		return "its regions are out of order or range";
	if (!ascend(&body, ret->n_pages, PAGE_SLOT_BIT, limits->n_pages))
		return "its pages are out of order or range";
	return NULL;
}

void record_arrays(const uint8_t *in, const struct record *record, uint32_t *ret_regions,
                   uint32_t *ret_pages)
{
	struct bytes body = bytes_over(in + SEAL_SIZE,
	                               record_bytes(record->n_regions, record->n_pages) - SEAL_SIZE);

	for (uint32_t i = 0; i < record->n_regions; i++)
		ret_regions[i] = take_u32(&body);
	for (uint32_t i = 0; i < record->n_pages; i++)
		ret_pages[i] = take_u32(&body);
}
