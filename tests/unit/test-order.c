/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may change a sector when others want to: by hand, and against a model by brute force. */
#include "check.h"

#include "base/attr.h"
#include "export/order.h"

#define N_RANGES 60u
#define N_CROWD 32640u              /* 255 clients with 128 requests each */
#define STEPS_MAX 100u              /* for each of them, on average */
#define SECTOR 512u

/* A range with what the model knows of it. */
struct wish {
	struct range range;
	unsigned number;                /* in order of arrival, from 1; 0: idle */
	unsigned n_granted;
	bool gives_at_once;             /* inside `granted` */
	struct wish *takes;             /* inside `granted`; may be NULL */
};

static struct order order;
static struct wish wishes[N_RANGES];
static unsigned n_arrived;

static void give(struct wish *wish)
{
	CHECK(wish->range.held);
	wish->number = 0;
	order_give(&order, &wish->range);
}

static bool take(struct wish *wish)
{
	wish->number = ++n_arrived;
	return order_take(&order, &wish->range);
}

static void on_granted(struct range *range)
{
	struct wish *wish = container_of(range, struct wish, range);

	CHECK(wish->number && range->held && !range->waiting);
	wish->n_granted++;
	if (wish->takes)
		(void) take(take_ptr(wish->takes));
	if (wish->gives_at_once)
		give(wish);
}

static struct wish *wish_for(unsigned i, uint64_t start, uint64_t end, bool alone)
{
	wishes[i] = (struct wish) {
		.range = { .start = start, .end = end, .alone = alone, .granted = on_granted },
	};
	return &wishes[i];
}

static void start(void)
{
	order_init(&order, false);
	memset(wishes, 0, sizeof wishes);
	n_arrived = 0;
}

static void expect_idle(void)
{
	CHECK(!order.fresh && !order.aligned && !order.alone);
}

TEST(aligned_ranges_never_wait_for_each_other)
{
	start();
	for (unsigned i = 0; i < N_RANGES; i++)
		CHECK(take(wish_for(i, i % 3 * SECTOR, 8 * SECTOR, false)));
	for (unsigned i = 0; i < N_RANGES; i++)
		give(&wishes[(i * 7 + 3) % N_RANGES]);
	for (unsigned i = 0; i < N_RANGES; i++)
		CHECK_EQ("called back", wishes[i].n_granted, 0);
	expect_idle();
}

TEST(a_range_alone_conflicts_with_what_shares_a_byte_and_with_nothing_else)
{
	static const struct {
		uint64_t start, end;
		bool waits;
	} rows[] = {
		{ 0, 8, false }, { 0, 9, true }, { 8, 9, true }, { 10, 12, true }, { 0, 99, true },
		{ 15, 16, true }, { 15, 99, true }, { 16, 17, false }, { 0, 1, false },
		{ UINT64_MAX - 1, UINT64_MAX, false }, { 0, UINT64_MAX, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int kind = 1; kind < 4; kind++) {
			struct wish *first, *second;

			start();
			first = wish_for(0, 8, 16, kind & 1);
			second = wish_for(1, rows[i].start, rows[i].end, kind & 2);
			CHECK(take(first));
			CHECK_EQ("taken", take(second), !rows[i].waits);
			CHECK_EQ("waits", second->range.waiting, rows[i].waits);
			give(first);
			CHECK_EQ("called", second->n_granted, rows[i].waits);
			CHECK(second->range.held);
			give(second);
			expect_idle();
		}
	}
}

TEST(first_come_first_served)
{
	start();
	for (unsigned i = 0; i < N_RANGES; i++)
		CHECK_EQ("held", take(wish_for(i, 0, SECTOR, true)), i == 0);
	for (unsigned i = 0; i < N_RANGES; i++) {
		for (unsigned k = i + 1; k < N_RANGES; k++)
			CHECK(!wishes[k].range.held && wishes[k].range.waiting);
		give(&wishes[i]);
	}
	expect_idle();
}

/* The one who waits alone would starve if aligned ranges went past it. */
TEST(an_aligned_range_does_not_overtake_one_that_waits_alone)
{
	start();
	CHECK(take(wish_for(0, 0, 8 * SECTOR, false)));
	CHECK(!take(wish_for(1, 0, SECTOR, true)));
	CHECK(!take(wish_for(2, 0, 8 * SECTOR, false)));
	CHECK(take(wish_for(3, SECTOR, 8 * SECTOR, false)));    /* somewhere else: passes */
	give(&wishes[0]);
	CHECK(wishes[1].range.held && !wishes[2].range.held);
	give(&wishes[1]);
	CHECK(wishes[2].range.held);
	give(&wishes[2]);
	give(&wishes[3]);
	expect_idle();
}

TEST(one_who_waits_for_several_waits_for_all_of_them)
{
	start();
	for (unsigned i = 0; i < 4; i++)
		CHECK(take(wish_for(i, i * SECTOR, (i + 1) * SECTOR, i % 2)));
	CHECK(!take(wish_for(4, 0, 4 * SECTOR, true)));
	give(&wishes[3]);
	give(&wishes[0]);
	give(&wishes[2]);
	CHECK(!wishes[4].range.held);
	give(&wishes[1]);
	CHECK(wishes[4].range.held);
	give(&wishes[4]);
	expect_idle();
}

TEST(a_release_wakes_all_who_can_go_on_together)
{
	start();
	CHECK(take(wish_for(0, 0, 8 * SECTOR, true)));
	for (unsigned i = 1; i < N_RANGES; i++)
		CHECK(!take(wish_for(i, 0, 8 * SECTOR, false)));
	give(&wishes[0]);
	for (unsigned i = 1; i < N_RANGES; i++) {
		CHECK_EQ("called once", wishes[i].n_granted, 1);
		give(&wishes[i]);
	}
	expect_idle();
}

TEST(giving_what_is_not_held_changes_nothing)
{
	start();
	order_give(&order, &wish_for(2, 0, SECTOR, true)->range);
	expect_idle();
	CHECK(take(wish_for(0, 0, SECTOR, true)));
	CHECK(!take(wish_for(1, 0, SECTOR, true)));
	order_give(&order, &wishes[1].range);
	order_give(&order, &wishes[2].range);
	CHECK(wishes[1].range.waiting);
	give(&wishes[0]);
	order_give(&order, &wishes[0].range);
	CHECK_EQ("called", wishes[1].n_granted, 1);
	give(&wishes[1]);
	expect_idle();
}

TEST(a_range_may_be_given_inside_granted)
{
	start();
	for (unsigned i = 0; i < N_RANGES; i++) {
		(void) take(wish_for(i, 0, SECTOR, i % 3 != 1));
		wishes[i].gives_at_once = i > 0;
	}
	give(&wishes[0]);
	for (unsigned i = 1; i < N_RANGES; i++)
		CHECK_EQ("called once", wishes[i].n_granted, 1);
	expect_idle();
}

TEST(a_range_may_be_taken_inside_granted)
{
	start();
	CHECK(take(wish_for(0, 0, SECTOR, true)));
	CHECK(!take(wish_for(1, 0, SECTOR, true)));
	CHECK(!take(wish_for(2, 0, SECTOR, true)));
	wishes[1].takes = wish_for(3, 0, SECTOR, true);
	wishes[1].gives_at_once = true;
	give(&wishes[0]);
	CHECK(wishes[2].range.held && wishes[3].range.waiting);
	give(&wishes[2]);
	CHECK(wishes[3].range.held);
	give(&wishes[3]);
	expect_idle();
}

/* A generator of our own: the same numbers on every machine. */
static uint32_t random_below(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t) (*state >> 33) % n;
}

/* Brute force: whoever came before and is in the way, held or waiting. */
static bool in_the_way(const struct wish *wish)
{
	for (unsigned i = 0; i < N_RANGES; i++) {
		const struct range *a = &wishes[i].range, *b = &wish->range;

		if (wishes[i].number && wishes[i].number < wish->number &&
		    (a->alone || b->alone) && a->start < b->end && b->start < a->end)
			return true;
	}
	return false;
}

/* Held are exactly those who have nobody before them: that is exclusion, order and progress. */
static void compare_with_model(uint64_t seed, unsigned step)
{
	char where[64];

	(void) snprintf(where, sizeof where, "seed %u step %u", (unsigned) seed, step);
	for (unsigned i = 0; i < N_RANGES; i++) {
		const struct wish *wish = &wishes[i];
		bool blocked = wish->number && in_the_way(wish);

		CHECK_EQ(where, wish->range.held, wish->number && !blocked);
		CHECK_EQ(where, wish->range.waiting, blocked);
	}
}

static void take_at_random(uint64_t *state, unsigned i, unsigned n_sectors)
{
	uint32_t at = random_below(state, n_sectors);
	uint32_t len = 1 + random_below(state, random_below(state, 6) ? 4 : n_sectors);
	struct wish *wish = wish_for(i, at * SECTOR, (at + len) * SECTOR,
	                             random_below(state, 3) == 0);
	bool held;

	wish->gives_at_once = random_below(state, 8) == 0;
	held = take(wish);
	CHECK_EQ("told", held, wish->range.held);
}

/* A step takes an idle one or gives a held one; at the end all are given as they are granted. */
static void run_model(uint64_t seed, unsigned n_sectors)
{
	uint64_t state = seed;
	unsigned left = N_RANGES;

	start();
	for (unsigned step = 0; step < 3000; step++) {
		unsigned i = random_below(&state, N_RANGES);

		if (!wishes[i].number)
			take_at_random(&state, i, n_sectors);
		else if (wishes[i].range.held)
			give(&wishes[i]);
		compare_with_model(seed, step);
	}
	for (unsigned round = 0; left && round <= N_RANGES; round++) {
		left = 0;
		for (unsigned i = 0; i < N_RANGES; i++) {
			if (wishes[i].range.held)
				give(&wishes[i]);
			left += wishes[i].number != 0;
		}
	}
	CHECK_EQ("still waiting", left, 0);
	expect_idle();
}

TEST(a_random_crowd_is_served_as_the_model_says)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		run_model(seed, 4 + (unsigned) seed * 3);
}

/* A crowd takes ranges at `start`, in the way of each other or not; the first is always alone. */
struct crowd {
	const char *what;
	uint64_t (*start)(unsigned i);
	uint64_t length;
	unsigned alone_every;           /* 0: none but the first */
};

static struct range crowd[N_CROWD];

static uint64_t at_one_place(unsigned i)
{
	(void) i;
	return 0;
}

static uint64_t further_down(unsigned i)
{
	return (N_CROWD - i) * SECTOR;
}

static uint64_t further_up(unsigned i)
{
	return i * SECTOR;
}

static uint64_t anywhere(unsigned i)
{
	return i * 2654435761u % N_CROWD * SECTOR;
}

static void on_crowd_granted(struct range *range)
{
	CHECK(range->held);
}

static void give_all(void)
{
	unsigned left = N_CROWD, n;

	do {
		n = 0;
		for (unsigned i = 0; i < N_CROWD; i++) {
			if (!crowd[i].held)
				continue;
			order_give(&order, &crowd[i]);
			n++;
		}
		left -= n;
	} while (n > 0);
	CHECK_EQ("still waiting", left, 0);
}

/* Not the time, which depends on the machine. */
TEST(a_range_costs_the_same_in_a_crowd_whatever_that_does)
{
	static const struct crowd rows[] = {
		{ "all wait for one", at_one_place, N_CROWD * SECTOR, 0 },
		{ "each waits for the one before", at_one_place, SECTOR, 1 },
		{ "nobody waits", further_up, SECTOR, 1 },
		{ "nobody waits, in no order", anywhere, SECTOR, 1 },
		{ "aligned ones between others", anywhere, SECTOR, 2 },
		{ "the same place, mixed", at_one_place, SECTOR, 3 },
		{ "over the one before, upwards", further_up, 2 * SECTOR, 1 },
		{ "over all before, downwards", further_down, N_CROWD * SECTOR, 1 },
		{ "over many before, downwards, mixed", further_down, 64 * SECTOR, 5 },
	};

	for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
		const struct crowd *c = &rows[row];

		start();
		for (unsigned i = 0; i < N_CROWD; i++) {
			crowd[i] = (struct range) {
				.start = c->start(i), .end = c->start(i) + c->length,
				.alone = i == 0 || (c->alone_every && i % c->alone_every == 0),
				.granted = on_crowd_granted,
			};
			(void) order_take(&order, &crowd[i]);
		}
		CHECK_EQ(c->what, order.n_steps / N_CROWD < STEPS_MAX, true);
		give_all();
		CHECK_EQ(c->what, order.n_steps / N_CROWD < STEPS_MAX, true);
		expect_idle();
	}
}
