/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a verified write puts at each offset: every 8 bytes are a hash of the seed and of
 * where they lie on the export, so that a lost, misplaced or torn write is seen, and a later
 * reader needs nothing but the seed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

static inline uint64_t mix_bits(uint64_t x)
{
	x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
	x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
	return x ^ (x >> 32);
}

/* Fills n bytes for this offset; both are multiples of 8. */
void content_fill(uint8_t *at, size_t n, uint64_t seed, uint64_t offset);

/* How many of these n bytes are right before the first wrong one: n when all are.  The
 * offset may be any. */
size_t content_check(const uint8_t *at, size_t n, uint64_t seed, uint64_t offset);
