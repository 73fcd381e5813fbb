/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The union of a view's deltas, read page by page and word by word.
 *
 * Bits only ever come, so a reader beside those who set them sees each as it was or as it is,
 * and what was dirty when the reader began it sees dirty.
 */
#include "dirty/view.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "dirty/catalogue.h"

#define DELTAS_MAX AREAS_MAX            /* a delta has an area of its own */

/* The same page of each delta that has something in it. */
struct pages {
	unsigned n;
	const delta_word *at[DELTAS_MAX];
};

static uint64_t granules_of(unsigned granule_shift, uint64_t size)
{
	return (size >> granule_shift) + ((size & ((UINT64_C(1) << granule_shift) - 1)) != 0);
}

struct view *view_new(bool everything, unsigned granule_shift, uint64_t size,
                      struct delta *const *deltas, unsigned n_deltas)
{
	struct view *view;

	assert(n_deltas <= DELTAS_MAX);
	for (unsigned i = 0; i < n_deltas; i++)
		assert(deltas[i]->n_granules >= granules_of(granule_shift, size));

	view = malloc(sizeof *view + n_deltas * sizeof(struct delta *));
	if (!view)
		return NULL;
	atomic_init(&view->n_refs, 1);
	view->everything = everything;
	view->granule_shift = granule_shift;
	view->size = size;
	view->n_deltas = n_deltas;
	for (unsigned i = 0; i < n_deltas; i++)
		view->deltas[i] = delta_ref(deltas[i]);
	return view;
}

struct view *view_ref(struct view *view)
{
	(void) atomic_fetch_add_explicit(&view->n_refs, 1, memory_order_relaxed);
	return view;
}

void view_unref(struct view *view)
{
	unsigned before;

	if (!view)
		return;
	before = atomic_fetch_sub_explicit(&view->n_refs, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before > 1)
		return;
	for (unsigned i = 0; i < view->n_deltas; i++)
		delta_unref(view->deltas[i]);
	free(view);
}

static void find_pages(const struct view *view, uint64_t page, struct pages *ret)
{
	ret->n = 0;
	for (unsigned i = 0; i < view->n_deltas; i++) {
		const delta_word *at = atomic_load_explicit(&view->deltas[i]->pages[page],
		                                            memory_order_acquire);

		if (at)
			ret->at[ret->n++] = at;
	}
}

static uint64_t word_of(const struct pages *pages, unsigned word)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < pages->n; i++)
		bits |= atomic_load_explicit(&pages->at[i][word], memory_order_relaxed);
	return bits;
}

/* The first of a page's granules [from, to) that is dirty, or is not; `to` if there is none. */
static unsigned find_in_page(const struct pages *pages, unsigned from, unsigned to, bool dirty)
{
	const uint64_t flip = dirty ? 0 : UINT64_MAX;
	uint64_t mask = UINT64_MAX << from % 64;

	for (unsigned word = from / 64; word * 64 < to; word++) {
		uint64_t bits = (word_of(pages, word) ^ flip) & mask;

		if (bits) {
			unsigned found = word * 64 + (unsigned) __builtin_ctzll(bits);

			return found < to ? found : to;
		}
		mask = UINT64_MAX;
	}
	return to;
}

/* The first of the granules [from, to) that is dirty, or is not; `to` if there is none. */
static uint64_t find(const struct view *view, uint64_t from, uint64_t to, bool dirty)
{
	struct pages pages;

	while (from < to) {
		uint64_t page = from / DELTA_PAGE_GRANULES, base = page * DELTA_PAGE_GRANULES;
		uint64_t stop = to - base < DELTA_PAGE_GRANULES ? to : base + DELTA_PAGE_GRANULES;
		uint64_t found = dirty ? stop : from;

		find_pages(view, page, &pages);
		if (pages.n)
			found = base + find_in_page(&pages, (unsigned) (from - base),
			                            (unsigned) (stop - base), dirty);
		if (found < stop)
			return found;
		from = stop;
	}
	return to;
}

bool view_extent(const struct view *view, uint64_t at, uint64_t end, uint64_t *ret_end)
{
	uint64_t first = at >> view->granule_shift, last, next;
	bool dirty;

	assert(at < end && end <= view->size);
	*ret_end = end;
	if (view->everything)
		return true;

	last = ((end - 1) >> view->granule_shift) + 1;
	dirty = find(view, first, first + 1, true) == first;
	next = find(view, first + 1, last, !dirty);
	if (next < last)
		*ret_end = next << view->granule_shift;
	return dirty;
}

static uint64_t count_in_page(const struct pages *pages, unsigned n_granules)
{
	uint64_t n = 0;

	for (unsigned word = 0; pages->n && word * 64 < n_granules; word++) {
		uint64_t bits = word_of(pages, word);

		if (n_granules - word * 64 < 64)
			bits &= (UINT64_C(1) << n_granules % 64) - 1;
		n += (unsigned) __builtin_popcountll(bits);
	}
	return n;
}

uint64_t view_dirty_bytes(const struct view *view)
{
	uint64_t n_granules = granules_of(view->granule_shift, view->size), n = 0, beyond;
	struct pages pages;

	if (view->everything || n_granules == 0)
		return view->size;
	/* Looked at before it is counted: a bit that is here now is there then. */
	beyond = (n_granules << view->granule_shift) - view->size;
	if (find(view, n_granules - 1, n_granules, true) == n_granules)
		beyond = 0;
	for (uint64_t base = 0; base < n_granules; base += DELTA_PAGE_GRANULES) {
		uint64_t left = n_granules - base;

		find_pages(view, base / DELTA_PAGE_GRANULES, &pages);
		n += count_in_page(&pages, left < DELTA_PAGE_GRANULES ? (unsigned) left :
		                   DELTA_PAGE_GRANULES);
	}
	n = (n << view->granule_shift) - beyond;
	return n < view->size ? n : view->size;
}
