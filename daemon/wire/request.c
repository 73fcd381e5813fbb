/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoders of the transmission phase.  What a request may ask is for the export's command
 * table to say; here is only what the bytes mean.
 */
#include "wire/request.h"

#include <assert.h>

bool decode_request(struct bytes in, enum nbd_mode mode, struct request *ret)
{
	bool extended = mode == NBD_MODE_EXTENDED;
	struct request req;
	uint32_t magic;

	magic = take_u32(&in);
	req.flags = take_u16(&in);
	req.type = take_u16(&in);
	req.cookie = take_u64(&in);
	req.offset = take_u64(&in);
	req.length = extended ? take_u64(&in) : take_u32(&in);

	if (!bytes_all_taken(&in))
		return false;
	if (magic != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
		return false;
	*ret = req;
	return true;
}

/* A WRITE in extended mode should set PAYLOAD_LEN, and some clients forget it: their data
 * follows all the same. */
uint64_t request_payload(const struct request *req, enum nbd_mode mode)
{
	bool announced = mode == NBD_MODE_EXTENDED && (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN);

	if (req->type == NBD_CMD_DISC)
		return 0;
	return announced || req->type == NBD_CMD_WRITE ? req->length : 0;
}

/* The bit of `id` in the selection; 0 for one that is not there. */
static uint64_t selected_bit(uint32_t id, const uint32_t *selected, size_t n_selected)
{
	for (size_t i = 0; i < n_selected; i++)
		if (selected[i] == id)
			return UINT64_C(1) << i;
	return 0;
}

bool decode_status_filter(struct bytes in, const uint32_t *selected, size_t n_selected,
                          struct status_filter *ret)
{
	struct status_filter filter = { 0 };

	assert(n_selected <= NBD_MAX_CONTEXTS);

	filter.length = take_u64(&in);
	while (bytes_left(&in)) {
		uint64_t bit = selected_bit(take_u32(&in), selected, n_selected);

		if (!bit || filter.wanted & bit)
			return false;
		filter.wanted |= bit;
	}
	if (!bytes_all_taken(&in) || !filter.wanted)
		return false;
	*ret = filter;
	return true;
}
