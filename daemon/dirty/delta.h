/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which granules have changed in one stretch of time: a bitmap in memory, sparse, by pages.
 *
 * Any thread may set bits and read; bits are never cleared.  A page that cannot be had for want
 * of memory counts as dirty as a whole.  The recorder's thread alone asks which pages are ahead
 * of the store.  Counted references: readers keep a delta while they look at it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one page of a store, too: 4032 bytes of bits behind 64 bytes of header. */
#define DELTA_PAGE_WORDS 504u
#define DELTA_PAGE_GRANULES (DELTA_PAGE_WORDS * 64u)

typedef _Atomic uint64_t delta_word;

struct delta {
	uint64_t id;                    /* ascending in time; never used twice in a store */
	unsigned area;                  /* where the store keeps it */
	_Atomic unsigned n_refs;
	uint64_t n_granules;
	uint32_t n_pages;
	/* Each DELTA_PAGE_WORDS; NULL: all clean.  Pages that are dirty as a whole share one, in
	 * which bits beyond n_granules are set too. */
	_Atomic(delta_word *) *pages;
	_Atomic uint8_t *ahead;         /* by page: changed since it was last written back */
};

/* With one reference, all clean; NULL when memory is short. */
struct delta *delta_new(uint64_t id, unsigned area, uint64_t n_granules);
struct delta *delta_ref(struct delta *delta);
void delta_unref(struct delta *delta);          /* NULL is nothing to do */

static inline uint32_t delta_pages_for(uint64_t n_granules)
{
	return (uint32_t) ((n_granules + DELTA_PAGE_GRANULES - 1) / DELTA_PAGE_GRANULES);
}

/* Sets granules [first, end), and marks the pages ahead in which that changed a bit. */
void delta_set(struct delta *delta, uint64_t first, uint64_t end);

/* Adds these bits, and marks nothing ahead: for pages that were just read from the store. */
void delta_load_page(struct delta *delta, uint32_t page, const uint64_t words[DELTA_PAGE_WORDS]);

bool delta_test(const struct delta *delta, uint64_t granule);

/* A copy of a page's bits as they are now.  False, and zeroes, when all of it is clean. */
bool delta_copy_page(const struct delta *delta, uint32_t page, uint64_t ret[DELTA_PAGE_WORDS]);

/* Whether the page is ahead of the store.  It is not any more, from here on: copy it after. */
bool delta_take_ahead(struct delta *delta, uint32_t page);
void delta_mark_ahead(struct delta *delta, uint32_t page);

/* Everything that `other` has, of the same size. */
void delta_add(struct delta *delta, const struct delta *other);

bool delta_is_empty(const struct delta *delta);
uint64_t delta_count(const struct delta *delta);        /* dirty granules */
