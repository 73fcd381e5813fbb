/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/crc32c.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u          /* reflected */

/* tables[k][b]: what byte `b` with k zero bytes behind it comes to. */
static uint32_t tables[8][256];

/* Before main(), so that no thread finds them half made. */
__attribute__((constructor)) static void make_tables(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t crc = b;

		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		tables[0][b] = crc;
	}
	for (unsigned k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++)
			tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
}

static uint32_t by_tables(uint32_t crc, const uint8_t *at, size_t length)
{
	for (; length >= 8; at += 8, length -= 8) {
		uint64_t word;

		memcpy(&word, at, sizeof word);
		word = le64toh(word) ^ crc;
		crc = 0;
		for (unsigned k = 0; k < 8; k++)
			crc ^= tables[7 - k][word >> 8 * k & 0xff];
	}
	for (; length > 0; at++, length--)
		crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
	return crc;
}

#if defined __x86_64__
static bool has_instruction(void)
{
	return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2")))
static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t length)
{
	uint64_t wide = crc;

	for (; length >= 8; at += 8, length -= 8) {
		uint64_t word;

		memcpy(&word, at, sizeof word);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t) wide;
	for (; length > 0; at++, length--)
		crc = __builtin_ia32_crc32qi(crc, *at);
	return crc;
}
#else
static bool has_instruction(void)
{
	return false;
}

static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t length)
{
	return by_tables(crc, at, length);
}
#endif

uint32_t crc32c(uint32_t before, const void *data, size_t length)
{
	return ~(has_instruction() ? by_instruction(~before, data, length)
	                           : by_tables(~before, data, length));
}
