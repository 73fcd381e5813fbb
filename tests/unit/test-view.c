/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Views: compared with a plain bool[], at every border, and fast on a device of 16 TiB. */
#include "check.h"

#include <stdlib.h>
#include <time.h>

#include "base/attr.h"
#include "dirty/view.h"

#define SHIFT 12u
#define GRANULE (UINT64_C(1) << SHIFT)
#define N_DELTAS 5u

/* Of processor time; ASan takes five times as much. */
#ifdef __SANITIZE_ADDRESS__
#define MOST_SECONDS 20
#else
#define MOST_SECONDS 1
#endif

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static struct view *view_of(bool everything, unsigned shift, uint64_t size, struct delta **deltas,
                            unsigned n)
{
	struct view *view = view_new(everything, shift, size, deltas, n);

	CHECK(view);
	for (unsigned i = 0; i < n; i++)
		delta_unref(deltas[i]);         /* the view has its own */
	return view;
}

/* Every extent of [at, end): alternating, without gaps, true.  Returns how many. */
static uint64_t check_map(const struct view *view, const bool *truth, uint64_t at, uint64_t end)
{
	uint64_t n = 0;
	bool before = false;

	while (at < end) {
		uint64_t stop = 0;
		bool dirty = view_extent(view, at, end, &stop);

		CHECK(stop > at && stop <= end);
		if (stop <= at)
			break;
		CHECK(n == 0 || dirty != before);
		for (uint64_t g = at >> SHIFT; g <= (stop - 1) >> SHIFT; g++)
			if (truth[g] != dirty)
				CHECK_EQ("granule", dirty, truth[g]);
		before = dirty;
		at = stop;
		n++;
	}
	return n;
}

static uint64_t bytes_in(const bool *truth, uint64_t size)
{
	uint64_t n = 0;

	for (uint64_t at = 0; at < size; at += GRANULE)
		if (truth[at >> SHIFT])
			n += size - at < GRANULE ? size - at : GRANULE;
	return n;
}

/* Some short runs, and some that are pages long. */
static void dirty_some(struct delta *delta, bool *truth, uint64_t n, uint32_t *random)
{
	for (unsigned i = next_random(random) % 40; i > 0; i--) {
		uint64_t first = next_random(random) % n;
		uint64_t len = 1 + next_random(random) % (i % 8 ? 200 : DELTA_PAGE_GRANULES * 2);
		uint64_t end = first + len < n ? first + len : n;

		delta_set(delta, first, end);
		memset(truth + first, true, end - first);
	}
}

TEST(a_view_is_the_union_of_its_deltas)
{
	enum { MOST = DELTA_PAGE_GRANULES * 4 };
	static bool truth[MOST];
	uint32_t random = 20240501;

	for (unsigned round = 0; round < 60; round++) {
		uint64_t n = 1 + next_random(&random) % MOST;
		uint64_t size = n * GRANULE - next_random(&random) % 8 * 512;
		unsigned n_deltas = round % (N_DELTAS + 1);
		struct delta *deltas[N_DELTAS];
		struct view *view;

		memset(truth, false, sizeof truth);
		for (unsigned i = 0; i < n_deltas; i++) {
			deltas[i] = delta_new(i + 1, i, n);
			dirty_some(deltas[i], truth, n, &random);
		}
		view = view_of(false, SHIFT, size, deltas, n_deltas);
		(void) check_map(view, truth, 0, size);
		CHECK_EQ("bytes", view_dirty_bytes(view), bytes_in(truth, size));
		for (unsigned i = 0; i < 50; i++) {
			uint64_t at = ((uint64_t) next_random(&random) << 9) % size;
			uint64_t len = 1 + ((uint64_t) next_random(&random) << 7) % (size - at);

			(void) check_map(view, truth, at, at + len);
		}
		view_unref(view);
	}
}

TEST(extents_end_at_granules_and_at_what_was_asked)
{
	enum { END = 20 * GRANULE + 512 };
	static const struct {
		const char *what;
		uint64_t at, end, stop;
		bool dirty;
	} cases[] = {
		{ "before", 0, 10 * GRANULE, 3 * GRANULE, false },
		{ "in the middle of a granule", 100, 10 * GRANULE, 3 * GRANULE, false },
		{ "one byte", 3 * GRANULE - 1, 3 * GRANULE, 3 * GRANULE, false },
		{ "the dirty ones", 3 * GRANULE, 10 * GRANULE, 5 * GRANULE, true },
		{ "a part of them", 3 * GRANULE + 7, 4 * GRANULE + 9, 4 * GRANULE + 9, true },
		{ "behind", 5 * GRANULE, 10 * GRANULE, 10 * GRANULE, false },
		{ "to the short last one", 6 * GRANULE, END, 20 * GRANULE, false },
		{ "the short last one", 20 * GRANULE, END, END, true },
		{ "its last byte", END - 1, END, END, true },
	};
	struct delta *delta = delta_new(1, 0, 21);
	struct view *view;

	delta_set(delta, 3, 5);
	delta_set(delta, 20, 21);
	view = view_of(false, SHIFT, END, &delta, 1);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t stop;

		CHECK_EQ(cases[i].what, view_extent(view, cases[i].at, cases[i].end, &stop),
		         cases[i].dirty);
		CHECK_EQ(cases[i].what, stop, cases[i].stop);
	}
	CHECK_EQ("the last one counts as far as it goes", view_dirty_bytes(view),
	         2 * GRANULE + 512);
	view_unref(view);
}

TEST(runs_go_on_over_words_and_pages)
{
	static const uint64_t borders[] = { 0, 1, 63, 64, 65, 128, DELTA_PAGE_GRANULES - 1,
	                                    DELTA_PAGE_GRANULES, DELTA_PAGE_GRANULES + 1,
	                                    DELTA_PAGE_GRANULES * 2, DELTA_PAGE_GRANULES * 3 };
	const uint64_t n = DELTA_PAGE_GRANULES * 3;

	for (size_t i = 0; i < ARRAY_LEN(borders); i++)
		for (size_t k = i + 1; k < ARRAY_LEN(borders); k++) {
			struct delta *deltas[2] = { delta_new(1, 0, n), delta_new(2, 1, n) };
			uint64_t middle = (borders[i] + borders[k]) / 2, stop = 0;
			struct view *view;

			if (middle > borders[i])
				delta_set(deltas[0], borders[i], middle);
			delta_set(deltas[1], middle, borders[k]);
			view = view_of(false, SHIFT, n * GRANULE, deltas, 2);
			CHECK_EQ("", view_extent(view, 0, n * GRANULE, &stop), borders[i] == 0);
			CHECK_EQ("", stop, (borders[i] ? borders[i] : borders[k]) * GRANULE);
			CHECK(view_extent(view, borders[i] * GRANULE, n * GRANULE, &stop));
			CHECK_EQ("", stop, borders[k] * GRANULE);
			view_unref(view);
		}
}

TEST(what_has_lost_track_is_dirty_as_a_whole)
{
	struct view *view = view_of(true, SHIFT, 5 * GRANULE + 512, NULL, 0);
	uint64_t stop;

	CHECK(view_extent(view, 0, 5 * GRANULE + 512, &stop));
	CHECK_EQ("", stop, 5 * GRANULE + 512);
	CHECK(view_extent(view, 700, 900, &stop));
	CHECK_EQ("", stop, 900);
	CHECK_EQ("", view_dirty_bytes(view), 5 * GRANULE + 512);
	view_unref(view);

	view = view_of(false, SHIFT, 5 * GRANULE + 512, NULL, 0);
	CHECK(!view_extent(view, 0, 5 * GRANULE + 512, &stop));
	CHECK_EQ("nothing changed", stop, 5 * GRANULE + 512);
	CHECK_EQ("", view_dirty_bytes(view), 0);
	view_unref(view);
}

TEST(a_view_keeps_its_deltas_and_shows_what_comes_to_them)
{
	struct delta *delta = delta_new(1, 0, 100);
	struct view *view = view_new(false, SHIFT, 100 * GRANULE, &delta, 1);
	uint64_t stop;

	CHECK(view_ref(view) == view);
	view_unref(view);
	CHECK(!view_extent(view, 0, 100 * GRANULE, &stop));
	delta_set(delta, 50, 100);
	delta_unref(delta);
	CHECK(!view_extent(view, 0, 100 * GRANULE, &stop));
	CHECK_EQ("", stop, 50 * GRANULE);
	CHECK_EQ("", view_dirty_bytes(view), 50 * GRANULE);
	view_unref(view);
	view_unref(NULL);
}

/* 16 TiB in granules of 64 KiB */

#define BIG_SHIFT 16u
#define BIG (UINT64_C(16) << 40)
#define BIG_GRANULES (BIG >> BIG_SHIFT)

static double map_seconds(const struct view *view, uint64_t *ret_extents)
{
	struct timespec began, ended;
	uint64_t at = 0;

	*ret_extents = 0;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	while (at < BIG) {
		(void) view_extent(view, at, BIG, &at);
		++*ret_extents;
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
	return (double) (ended.tv_sec - began.tv_sec) + 1e-9 * (double) (ended.tv_nsec -
	                                                                began.tv_nsec);
}

static void check_speed(const char *what, void (*fill)(struct delta *delta, unsigned i),
                        uint64_t n_extents)
{
	struct delta *deltas[N_DELTAS];
	struct view *view;
	uint64_t found;
	double seconds;

	for (unsigned i = 0; i < N_DELTAS; i++) {
		deltas[i] = delta_new(i + 1, i, BIG_GRANULES);
		CHECK(deltas[i]);
		if (!deltas[i])
			return;
		fill(deltas[i], i);
	}
	view = view_of(false, BIG_SHIFT, BIG, deltas, N_DELTAS);
	seconds = map_seconds(view, &found);
	printf("16 TiB, %s: %llu extents in %.3f s\n", what, (unsigned long long) found, seconds);
	CHECK_EQ(what, found, n_extents);
	CHECK(seconds < MOST_SECONDS);
	view_unref(view);
}

static void fill_nothing(struct delta *delta, unsigned i)
{
	(void) delta, (void) i;
}

static void fill_all(struct delta *delta, unsigned i)
{
	(void) i;
	delta_set(delta, 0, BIG_GRANULES);
}

/* A bit in each page of each delta: nothing can be skipped. */
static void fill_thinly(struct delta *delta, unsigned i)
{
	for (uint64_t at = 10 * i; at < BIG_GRANULES; at += DELTA_PAGE_GRANULES)
		delta_set(delta, at, at + 1);
}

static void fill_some(struct delta *delta, unsigned i)
{
	for (uint64_t at = 100 * i; at < BIG_GRANULES; at += 1000)
		delta_set(delta, at, at + 50);
}

TEST(the_map_of_16_tib_takes_less_than_a_second)
{
	const uint64_t n_pages = delta_pages_for(BIG_GRANULES);

	check_speed("nothing dirty", fill_nothing, 1);
	check_speed("all dirty in five deltas", fill_all, 1);
	/* The first extent begins at 0; all others have a clean one behind them. */
	check_speed("a granule in each page of five deltas", fill_thinly, 2 * N_DELTAS * n_pages);
	check_speed("a quarter of it dirty, in stretches", fill_some,
	            (BIG_GRANULES + 999) / 1000 * 2 * N_DELTAS);
}
