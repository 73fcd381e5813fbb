/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzz targets of records between our own programs share: a string that was read, and the
 * second try with a header that is right, so that the bodies get their share.
 */
#pragma once

#include "fuzz.h"

#include "base/text.h"

#define FRAME_SIZE 8u                   /* see wire/record-frame.h */

static inline void require_text(struct span text, size_t max, const uint8_t *at, size_t len)
{
	REQUIRE(lies_in(text, at, len));
	REQUIRE(text.len <= max);
	REQUIRE(is_utf8(text));
	REQUIRE(text.len == 0 || !memchr(text.at, '\0', text.len));
}

/* The input as it is, and once more as the body of a record whose header is right. */
static inline void fuzz_framed(const uint8_t *at, size_t len, uint8_t version,
                               void (*fuzz_record)(const uint8_t *at, size_t len))
{
	uint32_t be_length = htobe32((uint32_t) len - FRAME_SIZE);
	uint8_t *copy;

	fuzz_record(at, len);
	if (len < FRAME_SIZE)
		return;
	copy = malloc(len);
	if (!copy)
		abort();
	memcpy(copy, at, len);
	copy[0] = version;
	copy[2] = copy[3] = 0;
	memcpy(copy + 4, &be_length, sizeof be_length);
	fuzz_record(copy, len);
	free(copy);
}
