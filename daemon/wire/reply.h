/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What we answer in the transmission phase: headers into a caller's buffer.
 *
 * Each function writes one header at `at` (REPLY_HEADER_MAX bytes hold any) and returns
 * its length.  Data, where there is some, follows from wherever it lies.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "wire/nbd.h"
#include "wire/request.h"

#define REPLY_HEADER_MAX (NBD_EXTENDED_CHUNK_SIZE + 12u)
#define REPLY_ERROR_TEXT_MAX 200u

/* A simple reply; for a READ that succeeded, its data follows. */
size_t put_simple_reply(uint8_t *at, uint64_t cookie, enum nbd_error error);

/* One chunk header of a structured or extended reply: `length` bytes follow it. */
size_t put_chunk(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                 uint16_t type, uint64_t length);

/* Chunk headers with the fixed fields of their payload. */
size_t put_offset_data(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                       uint64_t offset, uint32_t length);
size_t put_offset_hole(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                       uint64_t offset, uint32_t length);

/* Before `n` extents: {u32 length, u32 flags}, or {u64, u64} in extended mode. */
size_t put_block_status(uint8_t *at, enum nbd_mode mode, const struct request *req, uint16_t flags,
                        uint32_t context_id, uint32_t n);

/*
 * The last word on a request: a simple reply in simple mode, and in structured mode for what
 * succeeded, except a READ; else the final chunk, which is NBD_REPLY_TYPE_ERROR with `sentence`
 * (NULL for none), or empty for NBD_SUCCESS.  *ret_text is what follows the header: of `sentence`
 * as much as REPLY_ERROR_TEXT_MAX bytes hold, or nothing.
 */
size_t put_final(uint8_t *at, enum nbd_mode mode, const struct request *req, enum nbd_error error,
                 const char *sentence, struct span *ret_text);

/* One extent; returns 8 or 16 bytes.  `length` fits 32 bits outside extended mode. */
size_t put_extent(uint8_t *at, enum nbd_mode mode, uint64_t length, uint64_t flags);

/* What a Linux errno (positive) of the device's is on the wire: EROFS is NBD_EPERM, EDQUOT and EFBIG
 * are NBD_ENOSPC, and what the protocol does not know (ENODATA, ETIMEDOUT, ...) is NBD_EIO. */
enum nbd_error nbd_error_of(int code);
