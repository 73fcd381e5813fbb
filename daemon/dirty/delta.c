/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/delta.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The page of whoever is dirty as a whole, or had no memory for one of its own. */
static delta_word full_page[DELTA_PAGE_WORDS] = { [0 ... DELTA_PAGE_WORDS - 1] = UINT64_MAX };

struct delta *delta_new(uint64_t id, unsigned area, uint64_t n_granules)
{
	uint32_t n_pages = delta_pages_for(n_granules);
	struct delta *delta = calloc(1, sizeof *delta);

	if (!delta)
		return NULL;
	delta->id = id;
	delta->area = area;
	delta->n_granules = n_granules;
	delta->n_pages = n_pages;
	atomic_init(&delta->n_refs, 1);
	delta->pages = calloc(n_pages, sizeof *delta->pages);
	delta->ahead = calloc(n_pages, sizeof *delta->ahead);
	if (!delta->pages || !delta->ahead) {
		delta_unref(delta);
		return NULL;
	}
	return delta;
}

struct delta *delta_ref(struct delta *delta)
{
	atomic_fetch_add_explicit(&delta->n_refs, 1, memory_order_relaxed);
	return delta;
}

void delta_unref(struct delta *delta)
{
	if (!delta || atomic_fetch_sub_explicit(&delta->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; delta->pages && i < delta->n_pages; i++) {
		delta_word *words = atomic_load_explicit(&delta->pages[i], memory_order_relaxed);

		if (words != full_page)
			free(words);
	}
	free(delta->pages);
	free((void *) delta->ahead);
	free(delta);
}

static delta_word *page_of(const struct delta *delta, uint32_t page)
{
	return atomic_load_explicit(&delta->pages[page], memory_order_acquire);
}

/* How many of a page's granules the device has. */
static unsigned granules_in(const struct delta *delta, uint32_t page)
{
	uint64_t left = delta->n_granules - (uint64_t) page * DELTA_PAGE_GRANULES;

	return left < DELTA_PAGE_GRANULES ? (unsigned) left : DELTA_PAGE_GRANULES;
}

/* The bits [from, to) of a page, as far as they are in its word `w`. */
static uint64_t mask_of(unsigned from, unsigned to, unsigned w)
{
	uint64_t mask = UINT64_MAX;

	if (to <= w * 64 || from >= (w + 1) * 64)
		return 0;
	if (from > w * 64)
		mask &= UINT64_MAX << (from - w * 64);
	if (to < (w + 1) * 64)
		mask &= UINT64_MAX >> ((w + 1) * 64 - to);
	return mask;
}

/* The page, made if there was none: full when that is wanted or memory is short.  *ret_changed
 * if that changed bits. */
static delta_word *demand_page(struct delta *delta, uint32_t page, bool full, bool *ret_changed)
{
	delta_word *words = page_of(delta, page);
	delta_word *made;

	*ret_changed = false;
	if (words)
		return words;
	made = full ? NULL : calloc(DELTA_PAGE_WORDS, sizeof *made);
	if (!made)
		made = full_page;
	if (atomic_compare_exchange_strong_explicit(&delta->pages[page], &words, made,
	                                            memory_order_acq_rel, memory_order_acquire)) {
		*ret_changed = made == full_page;
		return made;
	}
	if (made != full_page)
		free(made);
	return words;
}

/* Most writes come where others have been: looking first keeps the cache line shared. */
static bool set_bits(delta_word *word, uint64_t bits)
{
	if ((atomic_load_explicit(word, memory_order_relaxed) & bits) == bits)
		return false;
	return (atomic_fetch_or_explicit(word, bits, memory_order_relaxed) & bits) != bits;
}

/* The page's granules [from, to); true if that changed any. */
static bool set_in_page(struct delta *delta, uint32_t page, unsigned from, unsigned to)
{
	bool whole = from == 0 && to == granules_in(delta, page);
	bool changed;
	delta_word *words = demand_page(delta, page, whole, &changed);

	if (words == full_page)
		return changed;
	for (unsigned w = from / 64; w <= (to - 1) / 64; w++)
		changed |= set_bits(&words[w], mask_of(from, to, w));
	return changed;
}

void delta_set(struct delta *delta, uint64_t first, uint64_t end)
{
	assert(first <= end && end <= delta->n_granules);
	while (first < end) {
		uint32_t page = (uint32_t) (first / DELTA_PAGE_GRANULES);
		uint64_t start = (uint64_t) page * DELTA_PAGE_GRANULES;
		uint64_t stop = start + DELTA_PAGE_GRANULES < end ? start + DELTA_PAGE_GRANULES : end;

		if (set_in_page(delta, page, (unsigned) (first - start), (unsigned) (stop - start)))
			delta_mark_ahead(delta, page);
		first = stop;
	}
}

/* True if that changed any bit.  Bits that stand for no granule are dropped. */
static bool add_words(struct delta *delta, uint32_t page, const uint64_t words[DELTA_PAGE_WORDS])
{
	unsigned n = granules_in(delta, page);
	bool any = false, full = true, changed;
	delta_word *into;

	for (unsigned w = 0; w * 64 < n; w++) {
		any |= (words[w] & mask_of(0, n, w)) != 0;
		full &= (words[w] & mask_of(0, n, w)) == mask_of(0, n, w);
	}
	if (!any)
		return false;
	into = demand_page(delta, page, full, &changed);
	for (unsigned w = 0; into != full_page && w * 64 < n; w++)
		changed |= set_bits(&into[w], words[w] & mask_of(0, n, w));
	return changed;
}

void delta_load_page(struct delta *delta, uint32_t page, const uint64_t words[DELTA_PAGE_WORDS])
{
	(void) add_words(delta, page, words);
}

bool delta_test(const struct delta *delta, uint64_t granule)
{
	const delta_word *words = page_of(delta, (uint32_t) (granule / DELTA_PAGE_GRANULES));
	unsigned bit = (unsigned) (granule % DELTA_PAGE_GRANULES);

	return words && atomic_load_explicit(&words[bit / 64], memory_order_relaxed) >> bit % 64 & 1;
}

bool delta_copy_page(const struct delta *delta, uint32_t page, uint64_t ret[DELTA_PAGE_WORDS])
{
	const delta_word *words = page_of(delta, page);
	unsigned n = granules_in(delta, page);
	uint64_t all = 0;

	memset(ret, 0, DELTA_PAGE_WORDS * sizeof *ret);
	for (unsigned w = 0; words && w * 64 < n; w++) {
		ret[w] = atomic_load_explicit(&words[w], memory_order_relaxed) & mask_of(0, n, w);
		all |= ret[w];
	}
	return all != 0;
}

/* A bit is set before its page is marked, and copied after it was taken: none falls between. */
bool delta_take_ahead(struct delta *delta, uint32_t page)
{
	return atomic_load_explicit(&delta->ahead[page], memory_order_relaxed) &&
	       atomic_exchange_explicit(&delta->ahead[page], 0, memory_order_acq_rel);
}

void delta_mark_ahead(struct delta *delta, uint32_t page)
{
	atomic_store_explicit(&delta->ahead[page], 1, memory_order_release);
}

void delta_add(struct delta *delta, const struct delta *other)
{
	uint64_t words[DELTA_PAGE_WORDS];

	assert(delta->n_granules == other->n_granules);
	for (uint32_t page = 0; page < other->n_pages; page++)
		if (delta_copy_page(other, page, words) && add_words(delta, page, words))
			delta_mark_ahead(delta, page);
}

static uint64_t count_page(const struct delta *delta, uint32_t page)
{
	const delta_word *words = page_of(delta, page);
	unsigned n = granules_in(delta, page);
	uint64_t count = 0;

	if (words == full_page)
		return n;
	for (unsigned w = 0; words && w * 64 < n; w++)
		count += (uint64_t) __builtin_popcountll(
			atomic_load_explicit(&words[w], memory_order_relaxed) & mask_of(0, n, w));
	return count;
}

bool delta_is_empty(const struct delta *delta)
{
	for (uint32_t page = 0; page < delta->n_pages; page++)
		if (count_page(delta, page))
			return false;
	return true;
}

uint64_t delta_count(const struct delta *delta)
{
	uint64_t count = 0;

	for (uint32_t page = 0; page < delta->n_pages; page++)
		count += count_page(delta, page);
	return count;
}
