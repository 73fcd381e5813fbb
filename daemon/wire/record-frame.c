/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "wire/record-frame.h"

#include <endian.h>
#include <string.h>

const char *take_frame(struct bytes in, uint8_t version, uint8_t *ret_type, struct bytes *ret_body)
{
	uint8_t theirs = take_u8(&in);
	uint8_t type = take_u8(&in);
	uint16_t zero = take_u16(&in);
	struct bytes body = take_bytes(&in, take_u32(&in));

	if (theirs != version)
		return "the version differs (were both programs restarted?)";
	if (!bytes_all_taken(&in))
		return "the length is wrong";
	if (zero != 0)
		return "the type is unknown";
	*ret_type = type;
	*ret_body = body;
	return NULL;
}

size_t emit_frame_begin(struct emit *out, uint8_t version, uint8_t type)
{
	emit_u8(out, version);
	emit_u8(out, type);
	emit_u16(out, 0);
	emit_u32(out, 0);
	return out->len;
}

void emit_frame_end(struct emit *out, size_t body_at)
{
	uint32_t be_length;

	if (!emit_fits(out))
		return;
	be_length = htobe32((uint32_t) (out->len - body_at));
	memcpy(out->start + body_at - sizeof be_length, &be_length, sizeof be_length);
}
