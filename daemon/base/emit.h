/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror of bytes.h: appends big-endian fields to a bounded buffer.
 *
 * What does not fit sets `overrun` and is not written; ask emit_fits() once,
 * at the end.  The buffer belongs to the caller.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

struct emit {
	uint8_t *start;
	size_t len;             /* written so far */
	size_t size;            /* of the buffer */
	bool overrun;
};

static inline struct emit emit_into(void *at, size_t size)
{
	return (struct emit) { .start = at, .size = size };
}

static inline void emit_span(struct emit *out, struct span s)
{
	if (out->overrun || s.len > out->size - out->len) {
		out->overrun = true;
		return;
	}
	if (s.len)
		memcpy(out->start + out->len, s.at, s.len);
	out->len += s.len;
}

static inline void emit_u8(struct emit *out, uint8_t v)
{
	emit_span(out, (struct span) { .at = &v, .len = 1 });
}

#define DEFINE_EMIT(bits)                                                     \
	static inline void emit_u##bits(struct emit *out, uint##bits##_t v)   \
	{                                                                     \
		uint##bits##_t be = htobe##bits(v);                           \
									      \
		emit_span(out, (struct span) { .at = (const uint8_t *) &be,   \
		                               .len = sizeof be });           \
	}
DEFINE_EMIT(16)
DEFINE_EMIT(32)
DEFINE_EMIT(64)
#undef DEFINE_EMIT

/* `len` zero bytes. */
static inline void emit_zeroes(struct emit *out, size_t len)
{
	if (out->overrun || len > out->size - out->len) {
		out->overrun = true;
		return;
	}
	memset(out->start + out->len, 0, len);
	out->len += len;
}

static inline bool emit_fits(const struct emit *out)
{
	return !out->overrun;
}
