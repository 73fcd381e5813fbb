/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes and checks the content of verified blocks. */
#include "content.h"

#include <endian.h>
#include <string.h>

static uint64_t word_at(uint64_t key, uint64_t offset)
{
	return htole64(mix_bits(key + offset));
}

static uint64_t key_of(uint64_t seed)
{
	return mix_bits(seed + 0x9e3779b97f4a7c15ull);
}

void content_fill(uint8_t *at, size_t n, uint64_t seed, uint64_t offset)
{
	uint64_t key = key_of(seed);

	for (size_t i = 0; i < n; i += 8) {
		uint64_t word = word_at(key, offset + i);

		memcpy(at + i, &word, 8);
	}
}

size_t content_check(const uint8_t *at, size_t n, uint64_t seed, uint64_t offset)
{
	uint64_t key = key_of(seed);
	size_t i = 0;

	while (i < n) {
		uint64_t where = offset + i;
		uint64_t word = word_at(key, where & ~UINT64_C(7));
		size_t skip = where & 7;

		if (skip == 0 && n - i >= 8 && memcmp(at + i, &word, 8) == 0) {
			i += 8;
			continue;
		}
		for (; skip < 8 && i < n; skip++, i++)
			if (at[i] != ((const uint8_t *) &word)[skip])
				return i;
	}
	return n;
}
