/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cursor over bytes a stranger sent.
 *
 * Every take_*() checks the length.  Past the end it yields zero and sets
 * `overrun`, which nothing ever clears, so a decoder reads all its fields in
 * order and asks bytes_all_taken() once.  Two rules follow:
 *
 *   - a count from the wire never bounds a loop or an allocation: carve out the
 *     bytes it stands for with take_bytes() and loop while some are left;
 *   - no decoded value leaves the decoder before bytes_all_taken() said yes.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
	const uint8_t *at;
	size_t left;
	bool overrun;
};

/* A run of bytes inside someone else's buffer; not NUL-terminated. */
struct span {
	const uint8_t *at;
	size_t len;
};

static inline struct bytes bytes_over(const void *at, size_t len)
{
	return (struct bytes) { .at = at, .left = len };
}

static inline struct span span_of(const char *text)
{
	return (struct span) { .at = (const uint8_t *) text, .len = strlen(text) };
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/* As many whole characters of the UTF-8 text `s` as `max` bytes hold. */
static inline struct span span_cut(struct span s, size_t max)
{
	if (s.len <= max)
		return s;
	while (max && (s.at[max] & 0xc0) == 0x80)
		max--;
	return (struct span) { .at = s.at, .len = max };
}

static inline struct span take_span(struct bytes *in, size_t len)
{
	struct span s = { 0 };

	if (in->overrun || len > in->left) {
		in->overrun = true;
		return s;
	}
	s = (struct span) { .at = in->at, .len = len };
	in->at += len;
	in->left -= len;
	return s;
}

/* A cursor over the next `len` bytes alone; an empty one past the end. */
static inline struct bytes take_bytes(struct bytes *in, size_t len)
{
	struct span s = take_span(in, len);

	return bytes_over(s.at, s.len);
}

static inline uint8_t take_u8(struct bytes *in)
{
	struct span s = take_span(in, 1);

	return s.len ? *s.at : 0;
}

/* An integer, big-endian on the wire, at any alignment. */
#define DEFINE_TAKE(bits)                                                     \
	static inline uint##bits##_t take_u##bits(struct bytes *in)           \
	{                                                                     \
		struct span s = take_span(in, sizeof(uint##bits##_t));        \
		uint##bits##_t v = 0;                                         \
									      \
		if (s.len)                                                    \
			memcpy(&v, s.at, sizeof v);                           \
		return be##bits##toh(v);                                      \
	}
DEFINE_TAKE(16)
DEFINE_TAKE(32)
DEFINE_TAKE(64)
#undef DEFINE_TAKE

static inline size_t bytes_left(const struct bytes *in)
{
	return in->overrun ? 0 : in->left;
}

/* True when the sender's lengths and ours agree exactly: none missing, none over. */
static inline bool bytes_all_taken(const struct bytes *in)
{
	return !in->overrun && in->left == 0;
}
