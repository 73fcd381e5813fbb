/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoders of the transmission phase.  The room was sized by the caller from the limits in
 * the header, so that nothing here can run over.
 */
#include "wire/reply.h"

#include <assert.h>
#include <errno.h>

#include "base/emit.h"

size_t put_simple_reply(uint8_t *at, uint64_t cookie, enum nbd_error error)
{
	struct emit out = emit_into(at, NBD_SIMPLE_REPLY_SIZE);

	emit_u32(&out, NBD_SIMPLE_REPLY_MAGIC);
	emit_u32(&out, error);
	emit_u64(&out, cookie);
	return out.len;
}

/* In simple mode there are no chunks. */
static struct emit emit_chunk(uint8_t *at, size_t size, enum nbd_mode mode,
                              const struct request *req, uint16_t flags, uint16_t type,
                              uint64_t length)
{
	struct emit out = emit_into(at, size);
	bool extended = mode == NBD_MODE_EXTENDED;

	assert(mode != NBD_MODE_SIMPLE);

	emit_u32(&out, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
	emit_u16(&out, flags);
	emit_u16(&out, type);
	emit_u64(&out, req->cookie);
	if (extended) {
		emit_u64(&out, req->offset);
		emit_u64(&out, length);
	} else {
		assert(length <= UINT32_MAX);
		emit_u32(&out, (uint32_t) length);
	}
	return out;
}

size_t put_chunk(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                 uint16_t type, uint64_t length)
{
	return emit_chunk(at, REPLY_HEADER_MAX, mode, req, flags, type, length).len;
}

size_t put_offset_data(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                       uint64_t offset, uint32_t length)
{
	struct emit out = emit_chunk(at, REPLY_HEADER_MAX, mode, req, flags,
	                             NBD_REPLY_TYPE_OFFSET_DATA,
	                             sizeof offset + (uint64_t) length);

	emit_u64(&out, offset);
	assert(emit_fits(&out));
	return out.len;
}

size_t put_offset_hole(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                       uint64_t offset, uint32_t length)
{
	struct emit out = emit_chunk(at, REPLY_HEADER_MAX, mode, req, flags,
	                             NBD_REPLY_TYPE_OFFSET_HOLE, sizeof offset + sizeof length);

	emit_u64(&out, offset);
	emit_u32(&out, length);
	assert(emit_fits(&out));
	return out.len;
}

size_t put_block_status(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                        uint32_t context_id, uint32_t n)
{
	bool extended = mode == NBD_MODE_EXTENDED;
	uint16_t type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
	uint64_t length = extended ? 8 + 16 * (uint64_t) n : 4 + 8 * (uint64_t) n;
	struct emit out = emit_chunk(at, REPLY_HEADER_MAX, mode, req, flags, type, length);

	emit_u32(&out, context_id);
	if (extended)
		emit_u32(&out, n);
	assert(emit_fits(&out));
	return out.len;
}

/* The header alone; `text_len` bytes of sentence follow it. */
static size_t put_error(uint8_t *at, enum nbd_mode mode, const struct request *req,
                        enum nbd_error error, uint16_t text_len)
{
	struct emit out = emit_chunk(at, REPLY_HEADER_MAX, mode, req, NBD_REPLY_FLAG_DONE,
	                             NBD_REPLY_TYPE_ERROR,
	                             sizeof(uint32_t) + sizeof(uint16_t) + text_len);

	emit_u32(&out, error);
	emit_u16(&out, text_len);
	assert(emit_fits(&out));
	return out.len;
}

size_t put_final(uint8_t *at, enum nbd_mode mode, const struct request *req, enum nbd_error error,
                 const char *sentence, struct span *ret_text)
{
	*ret_text = (struct span) { 0 };
	if (mode == NBD_MODE_SIMPLE ||
	    (!error && mode == NBD_MODE_STRUCTURED && req->type != NBD_CMD_READ))
		return put_simple_reply(at, req->cookie, error);
	if (!error)
		return put_chunk(at, mode, req, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0);
	if (sentence)
		*ret_text = span_cut(span_of(sentence), REPLY_ERROR_TEXT_MAX);
	return put_error(at, mode, req, error, (uint16_t) ret_text->len);
}

size_t put_extent(uint8_t *at, enum nbd_mode mode, uint64_t length, uint64_t flags)
{
	struct emit out = emit_into(at, 2 * sizeof(uint64_t));

	if (mode == NBD_MODE_EXTENDED) {
		emit_u64(&out, length);
		emit_u64(&out, flags);
	} else {
		assert(length <= UINT32_MAX && flags <= UINT32_MAX);
		emit_u32(&out, (uint32_t) length);
		emit_u32(&out, (uint32_t) flags);
	}
	return out.len;
}

enum nbd_error nbd_error_of(int code)
{
	switch (code) {
	case 0:
		return NBD_SUCCESS;
	case EPERM:
	case EROFS:
		return NBD_EPERM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOMEM:
		return NBD_ENOMEM;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:                        /* EIO, and all else that a medium or its transport says */
		return NBD_EIO;
	}
}
