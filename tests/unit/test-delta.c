/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

#include "dirty/crc32c.h"
#include "dirty/delta.h"

#define PAGE DELTA_PAGE_GRANULES

TEST(the_checksum_is_the_one_of_the_standard)
{
	CHECK_EQ("test vector", crc32c(0, "123456789", 9), 0xe3069283);
	CHECK_EQ("in pieces", crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	CHECK_EQ("nothing", crc32c(0, "", 0), 0);
}

/* Against an array of bool, which cannot be wrong. */
static void compare(const char *where, const struct delta *delta, const bool *want)
{
	uint64_t count = 0, n_wrong = 0;

	for (uint64_t g = 0; g < delta->n_granules; g++) {
		count += want[g];
		n_wrong += delta_test(delta, g) != want[g];
	}
	CHECK_EQ(where, n_wrong, 0);
	CHECK_EQ(where, delta_count(delta), count);
	CHECK_EQ(where, delta_is_empty(delta), count == 0);
}

TEST(ranges_set_their_granules_and_no_others)
{
	static const struct {
		const char *where;
		uint64_t first, end;
	} ranges[] = {
		{ "one", 5, 6 },
		{ "none", 70, 70 },
		{ "a word", 128, 192 },
		{ "over words", 190, 450 },
		{ "the last", 3 * PAGE + 99, 3 * PAGE + 100 },
		{ "over pages", PAGE - 1, PAGE + 1 },
		{ "a whole page and more", 2 * PAGE - 3, 3 * PAGE + 2 },
		{ "the last page whole", 3 * PAGE, 3 * PAGE + 100 },
		{ "everything", 0, 3 * PAGE + 100 },
	};
	static bool want[3 * PAGE + 100];
	struct delta *delta = delta_new(7, 3, 3 * PAGE + 100);

	CHECK_EQ("pages", delta->n_pages, 4);
	compare("new", delta, want);
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		delta_set(delta, ranges[i].first, ranges[i].end);
		memset(want + ranges[i].first, 1, ranges[i].end - ranges[i].first);
		compare(ranges[i].where, delta, want);
	}
	delta_unref(delta);
}

TEST(a_page_is_ahead_after_a_change_and_only_then)
{
	struct delta *delta = delta_new(1, 0, 3 * PAGE);

	delta_set(delta, 10, 20);
	CHECK(delta_take_ahead(delta, 0));
	CHECK(!delta_take_ahead(delta, 0));
	CHECK(!delta_take_ahead(delta, 1));
	delta_set(delta, 12, 18);
	CHECK(!delta_take_ahead(delta, 0));
	delta_set(delta, 19, 21);
	CHECK(delta_take_ahead(delta, 0));
	delta_set(delta, 0, 3 * PAGE);
	CHECK(delta_take_ahead(delta, 0) && delta_take_ahead(delta, 1) && delta_take_ahead(delta, 2));
	delta_set(delta, 0, 3 * PAGE);
	CHECK(!delta_take_ahead(delta, 1));
	delta_mark_ahead(delta, 1);
	CHECK(delta_take_ahead(delta, 1));
	delta_unref(delta);
}

TEST(what_was_loaded_is_not_ahead_and_ends_with_the_device)
{
	uint64_t words[DELTA_PAGE_WORDS], again[DELTA_PAGE_WORDS];
	struct delta *delta = delta_new(1, 0, PAGE + 70);

	memset(words, 0xff, sizeof words);
	delta_load_page(delta, 1, words);
	CHECK_EQ("loaded", delta_count(delta), 70);
	CHECK(!delta_take_ahead(delta, 1));
	CHECK(delta_copy_page(delta, 1, again));
	CHECK_EQ("whole word", again[0] == UINT64_MAX, 1);
	CHECK_EQ("last word", again[1], 0x3f);
	CHECK_EQ("beyond", again[2], 0);
	CHECK(!delta_copy_page(delta, 0, again));
	memset(words, 0, sizeof words);
	words[3] = 1;
	delta_load_page(delta, 0, words);
	delta_load_page(delta, 1, words);
	CHECK_EQ("added", delta_count(delta), 71);
	CHECK(delta_test(delta, 192));
	delta_unref(delta);
}

TEST(adding_a_delta_unites)
{
	struct delta *a = delta_new(1, 0, 4 * PAGE), *b = delta_new(2, 1, 4 * PAGE);

	delta_set(a, 5, 10);
	delta_set(b, 8, 12);
	delta_set(b, 2 * PAGE, 3 * PAGE);
	CHECK(delta_take_ahead(a, 0));
	delta_add(a, b);
	CHECK_EQ("union", delta_count(a), 7 + PAGE);
	CHECK(delta_take_ahead(a, 0) && !delta_take_ahead(a, 1) && delta_take_ahead(a, 2));
	delta_add(a, b);
	CHECK(!delta_take_ahead(a, 0) && !delta_take_ahead(a, 2));
	delta_unref(delta_ref(a));
	delta_unref(a);
	delta_unref(b);
}

/* Threads set bits while pages are taken and copied: every bit is in a copy made after it. */

#define N_THREADS 3u
#define N_GRANULES (2 * PAGE + 777)

struct race {
	struct delta *delta;
	unsigned thread;
	_Atomic unsigned *n_done;
};

static void *set_mine(void *at)
{
	struct race *race = at;

	for (uint64_t g = race->thread; g < N_GRANULES; g += N_THREADS)
		delta_set(race->delta, g, g + 1);
	atomic_fetch_add(race->n_done, 1);
	return NULL;
}

static void copy_ahead(struct delta *delta, uint64_t store[][DELTA_PAGE_WORDS])
{
	for (uint32_t page = 0; page < delta->n_pages; page++)
		if (delta_take_ahead(delta, page))
			(void) delta_copy_page(delta, page, store[page]);
}

TEST(no_bit_is_missed_by_who_takes_pages_meanwhile)
{
	static uint64_t store[3][DELTA_PAGE_WORDS];
	struct delta *delta = delta_new(1, 0, N_GRANULES);
	pthread_t threads[N_THREADS];
	struct race races[N_THREADS];
	_Atomic unsigned n_done = 0;
	uint64_t count = 0;

	for (unsigned i = 0; i < N_THREADS; i++) {
		races[i] = (struct race) { .delta = delta, .thread = i, .n_done = &n_done };
		CHECK_EQ("thread", pthread_create(&threads[i], NULL, set_mine, &races[i]), 0);
	}
	while (atomic_load(&n_done) < N_THREADS)
		copy_ahead(delta, store);
	for (unsigned i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	copy_ahead(delta, store);
	for (unsigned page = 0; page < 3; page++)
		for (unsigned w = 0; w < DELTA_PAGE_WORDS; w++)
			count += (uint64_t) __builtin_popcountll(store[page][w]);
	CHECK_EQ("in memory", delta_count(delta), N_GRANULES);
	CHECK_EQ("copied", count, N_GRANULES);
	delta_unref(delta);
}
