/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strings in the records between our own programs: u16 length, text; UTF-8 without NUL.
 */
#pragma once

#include <assert.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "base/text.h"

static inline struct span take_text(struct bytes *in)
{
	return take_span(in, take_u16(in));
}

static inline void emit_text(struct emit *out, struct span text)
{
	assert(text.len <= UINT16_MAX);
	emit_u16(out, (uint16_t) text.len);
	emit_span(out, text);
}

/* NULL, or what is wrong with it in words for the log. */
static inline const char *check_text(struct span text, size_t max)
{
	if (text.len > max)
		return "a string is too long";
	if (!is_utf8(text))
		return "a string is not UTF-8";
	return NULL;
}
