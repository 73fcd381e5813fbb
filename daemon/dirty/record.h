/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A record as bytes: which regions are armed, and which page slots are being written.
 *
 * Pages are written down with the slot that they go to, in PAGE_SLOT_BIT.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PAGE_SLOT_BIT (UINT32_C(1) << 31)

struct record {
	uint64_t sequence;
	uint64_t delta_id;              /* whose pages; 0: nothing records */
	uint32_t n_regions;
	uint32_t n_pages;
	const uint32_t *regions;        /* ascending */
	const uint32_t *pages;          /* ascending, not counting the bit */
};

/* What may be in a record of one store. */
struct record_limits {
	uint32_t n_armed;               /* regions at most */
	uint32_t n_announced;           /* pages at most */
	uint32_t n_regions, n_pages;    /* of the device */
};

/* The bytes that hold any such record. */
static inline size_t record_bytes(uint32_t n_regions, uint32_t n_pages)
{
	return 64 + 4 * ((size_t) n_regions + n_pages);
}

/* Returns the length in bytes; they fit. */
size_t record_encode(uint8_t *out, size_t size, const uint8_t uuid[16],
                     const struct record *record);

/* NULL, or in words what is wrong with it.  The arrays stay in `in`, still encoded: NULL here. */
const char *record_check(const uint8_t *in, size_t size, const uint8_t uuid[16],
                         const struct record_limits *limits, struct record *ret);

/* The arrays of one that is right. */
void record_arrays(const uint8_t *in, const struct record *record, uint32_t *ret_regions,
                   uint32_t *ret_pages);
