/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The budget: blocks never overlap, all come back, floors and shares hold, pages cool down. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/attr.h"
#include "export/memory.h"

#define MIB (1u << 20)
#define BUDGET (16u * MIB)
#define N_CLIENTS 64u
#define N_BLOCKS 4096u          /* more than the budget has pages of 4 KiB */

static struct memory memory;
static struct holder holders[N_CLIENTS];
static struct block blocks[N_BLOCKS];
static unsigned n_blocks;
static bool owned[BUDGET / MEMORY_PAGE];        /* pages of the whole range */

static void start_with(uint64_t budget, unsigned n_clients, uint32_t align)
{
	struct failure why = { 0 };

	CHECK_EQ(why.text, memory_init(&memory, budget, n_clients, align, &why), 0);
	memset(holders, 0, sizeof holders);
	memset(owned, 0, sizeof owned);
	n_blocks = 0;
}

static void start(void)
{
	start_with(BUDGET, N_CLIENTS, 512);
	memory_admit(&memory, &holders[0]);
}

/* Marks the pages of a block as somebody's; they must have been nobody's. */
static void own(const struct block *b, bool now)
{
	size_t at = (size_t) (b->at - memory.base);

	CHECK_EQ("aligned", at % MEMORY_PAGE, 0);
	CHECK_EQ("whole pages", b->size % MEMORY_PAGE, 0);
	CHECK(b->size && at + b->size <= memory.size);
	CHECK_EQ("of the floors", at >= memory.shared_size, b->is_floor);
	for (size_t page = at / MEMORY_PAGE; page < (at + b->size) / MEMORY_PAGE; page++) {
		CHECK_EQ("owned", owned[page], !now);
		owned[page] = now;
	}
}

/* Remembers a block that was taken.  False for none. */
static bool keep(struct block b)
{
	if (!b.at)
		return false;
	own(&b, true);
	blocks[n_blocks++] = b;
	return true;
}

static void give(struct holder *who, unsigned i)
{
	own(&blocks[i], false);
	memory_give(&memory, who, &blocks[i]);
	CHECK(!blocks[i].at);
	blocks[i] = blocks[--n_blocks];
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t) (*state >> 33) % n;
}

static uint64_t bytes_kept(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n_blocks; i++)
		sum += blocks[i].is_floor ? 0 : blocks[i].size;
	return sum;
}

/* Everything is back, and as whole as it was: the shared part comes in the largest blocks. */
static void expect_all_back(struct holder *who)
{
	CHECK_EQ("blocks", n_blocks, 0);
	CHECK_EQ("used", memory.shared_used, 0);
	CHECK_EQ("held", who->held, 0);
	for (uint64_t left = memory.shared_size; left; left -= MEMORY_PIECE) {
		struct block b = memory_take_more(&memory, who, MEMORY_PIECE);

		CHECK_EQ("size", b.size, MEMORY_PIECE);
		(void) keep(b);
	}
	CHECK(!memory_has(&memory, 1));
	while (n_blocks)
		give(who, n_blocks - 1);
	CHECK_EQ("used", memory.shared_used, 0);
	memory_dismiss(&memory, who);
	memory_deinit(&memory);
}

static void step_at_random(uint64_t *state, uint32_t sector)
{
	uint32_t want, least;
	struct block b;

	if (n_blocks && random_below(state, 100) < 45) {
		give(&holders[0], random_below(state, n_blocks));
		return;
	}
	want = sector * (1 + random_below(state, MEMORY_PIECE / sector));
	least = sector + random_below(state, want - sector + 1);
	b = memory_take(&memory, &holders[0], want, least);
	if (!keep(b))
		return;
	CHECK(b.size >= least);
	CHECK(b.is_floor || b.size < 2 * want || b.size == MEMORY_PAGE);
	CHECK_EQ("whole sectors", b.size % sector, 0);
	CHECK_EQ("at a sector", (uint64_t) (b.at - memory.base) % sector, 0);
}

static void run_at_random(uint64_t seed, uint32_t sector)
{
	uint64_t state = seed;

	for (unsigned step = 0; step < 4000; step++) {
		step_at_random(&state, sector);
		CHECK_EQ("used", memory.shared_used, bytes_kept());
		CHECK_EQ("held", holders[0].held, bytes_kept());
		CHECK(memory.shared_used <= memory.shared_size);
	}
	while (n_blocks)
		give(&holders[0], random_below(&state, n_blocks));
	expect_all_back(&holders[0]);
}

TEST(blocks_never_overlap_and_all_come_back)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		start();
		memory.share = memory.shared_size;
		run_at_random(seed, 512);
	}
}

TEST(blocks_hold_whole_sectors_of_64_kib)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		start_with(BUDGET, 8, 65536);
		memory_admit(&memory, &holders[0]);
		CHECK(memory.floor_size >= 65536);
		CHECK_EQ("the least", memory_take_more(&memory, &holders[0], 1).size, 65536);
		memory_give(&memory, &holders[0], &(struct block) { memory.base, 65536, false });
		memory.share = memory.shared_size;
		run_at_random(seed, 65536);
	}
}

TEST(the_budget_covers_floors_buffers_and_the_shared_part)
{
	static const struct {
		uint64_t budget;
		unsigned n_clients;
		uint32_t align;
	} rows[] = {
		{ 64 * MIB, 256, 512 }, { 48 * MIB, 1, 512 }, { 48 * MIB, 1500, 512 },
		{ 64 * MIB, 32, 65536 }, { 64 * MIB, 100, 4096 }, { 300 * MIB, 1000, 4096 },
		{ 64 * MIB + 12345, 77, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t floors;

		start_with(rows[i].budget, rows[i].n_clients, rows[i].align);
		floors = (uint64_t) memory.floor_size * rows[i].n_clients;
		CHECK(memory.size + floors <= rows[i].budget);
		CHECK(memory.shared_size >= rows[i].budget / 4 * 3 - MEMORY_PIECE);
		CHECK(memory.floor_size >= MEMORY_PAGE && memory.floor_size >= rows[i].align);
		memory_deinit(&memory);
	}
}

static void expect_too_small(uint64_t budget, unsigned n_clients, uint32_t align)
{
	struct failure why = { 0 };
	const char *number;

	CHECK_EQ("refused", memory_init(&memory, budget, n_clients, align, &why), -EINVAL);
	CHECK_EQ("code", why.code, EINVAL);
	memory_deinit(&memory);

	/* What it asks for is enough. */
	number = strstr(why.text, ": ");
	CHECK(number);
	if (number) {
		budget = strtoull(number + 2, NULL, 10) * MIB;
		start_with(budget, n_clients, align);
		memory_deinit(&memory);
	}
}

TEST(a_budget_too_small_for_the_floors_is_refused_with_the_size_that_will_do)
{
	expect_too_small(48 * MIB, 10000, 512);
	expect_too_small(64 * MIB, 33, 65536);
	expect_too_small(64 * MIB, 513, 4096);
	expect_too_small(4095 * 8, 1, 512);
	expect_too_small(0, 1, 512);
}

TEST(every_client_has_a_floor_whatever_the_others_hold)
{
	start();
	while (memory_has(&memory, 1))
		(void) keep(memory_take_more(&memory, &holders[0], MEMORY_PIECE));
	for (unsigned i = 1; i < N_CLIENTS; i++)
		memory_admit(&memory, &holders[i]);
	CHECK_EQ("left", memory.n_floors_free, 0);
	for (unsigned i = 0; i < N_CLIENTS; i++) {
		struct block b = memory_take(&memory, &holders[i], MEMORY_PIECE, 4096);

		CHECK(b.is_floor);
		CHECK_EQ("size", b.size, memory.floor_size);
		CHECK(keep(b));
		CHECK(!memory_take(&memory, &holders[i], 4096, 4096).at);
	}
	/* Given back, it is there again. */
	memory_give(&memory, &holders[3],
	            &(struct block) { holders[3].floor, memory.floor_size, true });
	CHECK(memory_take(&memory, &holders[3], 4096, 4096).at == holders[3].floor);
	for (unsigned i = 0; i < N_CLIENTS; i++)
		memory_give(&memory, &holders[i], &(struct block) { holders[i].floor, 1, true });
	for (unsigned i = 1; i < N_CLIENTS; i++)
		memory_dismiss(&memory, &holders[i]);
	memory_deinit(&memory);
}

TEST(a_floor_serves_nothing_larger_than_itself)
{
	struct block b;

	start();
	memory.closed = true;
	CHECK(!memory_take(&memory, &holders[0], MEMORY_PIECE, memory.floor_size + 1).at);
	b = memory_take(&memory, &holders[0], MEMORY_PIECE, memory.floor_size);
	CHECK(b.is_floor && b.at == holders[0].floor);
	CHECK_EQ("held", holders[0].held, 0);
	memory_give(&memory, &holders[0], &b);
	memory.closed = false;
	b = memory_take(&memory, &holders[0], MEMORY_PIECE, memory.floor_size);
	CHECK(!b.is_floor);
	memory_give(&memory, &holders[0], &b);
	expect_all_back(&holders[0]);
}

TEST(floors_are_used_again_by_the_next_clients)
{
	start();
	for (unsigned round = 0; round < 3 * N_CLIENTS; round++) {
		struct holder *who = &holders[1 + round % (N_CLIENTS - 1)];

		if (who->floor)
			memory_dismiss(&memory, who);
		memory_admit(&memory, who);
		for (unsigned i = 0; i < N_CLIENTS; i++)
			CHECK(&holders[i] == who || holders[i].floor != who->floor);
		CHECK(who->floor >= memory.base + memory.shared_size);
		CHECK(who->floor + memory.floor_size <= memory.base + memory.size);
	}
	memory_deinit(&memory);
}

static uint64_t take_all_there_is(struct holder *who, uint32_t want)
{
	struct block b;

	do {
		b = memory_take(&memory, who, want, want);
		(void) keep(b);
	} while (b.at && !b.is_floor);
	return who->held;
}

TEST(a_holder_has_its_share_and_no_more)
{
	static const unsigned n_busy[] = { 0, 1, 2, 3, 7, 24, 1000 };

	for (size_t i = 0; i < ARRAY_LEN(n_busy); i++) {
		uint64_t fair, held;

		start();
		memory_set_busy(&memory, n_busy[i]);
		fair = memory.shared_size / 2 / (n_busy[i] ? n_busy[i] : 1);
		if (fair < MEMORY_PIECE)
			fair = MEMORY_PIECE;
		held = take_all_there_is(&holders[0], 4096);
		CHECK_EQ("held", held, fair / MEMORY_PAGE * MEMORY_PAGE);
		/* What must be whole may have more. */
		CHECK(keep(memory_take_more(&memory, &holders[0], MEMORY_PIECE)));
		CHECK_EQ("more", holders[0].held, held + MEMORY_PIECE);
		while (n_blocks)
			give(&holders[0], 0);
		expect_all_back(&holders[0]);
	}
}

TEST(a_holder_has_one_whole_reply_beyond_its_share_and_no_other)
{
	uint64_t share;

	start();
	memory.share = share = memory.shared_size / 4;
	CHECK(memory_allows_whole(&memory, &holders[0], 3 * share));
	CHECK(keep(memory_take_more(&memory, &holders[0], MEMORY_PIECE)));
	CHECK(memory_allows_whole(&memory, &holders[0], 3 * share));    /* beside what is not whole */
	holders[0].n_whole = 1;
	CHECK(memory_allows_whole(&memory, &holders[0], share - MEMORY_PIECE));
	CHECK(!holders[0].over_share);
	CHECK(!memory_allows_whole(&memory, &holders[0], share - MEMORY_PIECE + 1));
	CHECK(holders[0].over_share);
	holders[0].n_whole = 0;
	CHECK(memory_allows_whole(&memory, &holders[0], 3 * share));
	while (n_blocks)
		give(&holders[0], 0);
	expect_all_back(&holders[0]);
}

TEST(whoever_holds_nothing_gets_one_block_though_the_share_is_smaller)
{
	struct block b;

	start();
	memory.share = 4096;
	b = memory_take(&memory, &holders[0], MEMORY_PIECE, MEMORY_PIECE);
	CHECK_EQ("size", b.size, MEMORY_PIECE);
	CHECK(!memory_take(&memory, &holders[0], 64 << 10, 64 << 10).at);
	memory_give(&memory, &holders[0], &b);
	expect_all_back(&holders[0]);
}

/* Takes `total` as a reply that must be whole does. */
static void take_whole(uint64_t total)
{
	while (total) {
		uint32_t want = total < MEMORY_PIECE ? (uint32_t) total : MEMORY_PIECE;
		struct block b = memory_take_more(&memory, &holders[0], want);

		if (!keep(b))
			return;
		total -= b.size < total ? b.size : total;
	}
}

static void fragment(uint64_t *state, uint32_t sector)
{
	unsigned keep_up_to = random_below(state, 100);

	while (memory_has(&memory, sector))
		(void) keep(memory_take_more(&memory, &holders[0], sector));
	for (unsigned i = n_blocks; i-- > 0;)
		if (random_below(state, 100) >= keep_up_to)
			give(&holders[0], i);
}

static void run_fragmented(uint64_t seed, uint32_t sector)
{
	uint64_t state = seed, n_free, total;

	fragment(&state, sector);
	n_free = memory.shared_size - memory.shared_used;
	CHECK(memory_has(&memory, n_free));
	CHECK(!memory_has(&memory, n_free + 1));
	CHECK(!memory_has(&memory, UINT64_MAX));

	/* Pieces of the largest size, and the rest rounded up: what the reader asks for. */
	total = random_below(&state, (uint32_t) n_free + 1) / MEMORY_PIECE * MEMORY_PIECE;
	CHECK(memory_has(&memory, total));
	take_whole(total ? total - random_below(&state, MEMORY_PIECE) : 0);
	CHECK(memory.shared_used <= memory.shared_size - n_free + total);

	take_whole(memory.shared_size - memory.shared_used);
	CHECK_EQ("left", memory.shared_size - memory.shared_used, 0);
	while (n_blocks)
		give(&holders[0], random_below(&state, n_blocks));
	expect_all_back(&holders[0]);
}

TEST(what_memory_has_can_be_taken_however_fragmented)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		start();
		run_fragmented(seed, 4096);
		start_with(BUDGET, 8, 65536);
		memory_admit(&memory, &holders[0]);
		run_fragmented(seed, 65536);
	}
}

/* When no block of the wished size is left, the largest there is will do, down to `least`. */
TEST(fragmented_memory_gives_smaller_blocks_but_none_below_the_least)
{
	struct block b;

	start();
	while (memory_has(&memory, 1))
		(void) keep(memory_take_more(&memory, &holders[0], 4096));
	for (unsigned i = n_blocks; i-- > 0;)
		if ((uint64_t) (blocks[i].at - memory.base) / 8192 % 2)
			give(&holders[0], i);
	memory.share = memory.shared_size;
	holders[0].floor_taken = true;
	CHECK(!memory_take(&memory, &holders[0], 32 << 10, 16 << 10).at);
	b = memory_take(&memory, &holders[0], 32 << 10, 4096);
	CHECK_EQ("size", b.size, 8192);
	memory_give(&memory, &holders[0], &b);
	holders[0].floor_taken = false;
	while (n_blocks)
		give(&holders[0], 0);
	expect_all_back(&holders[0]);
}

TEST(giving_is_remembered_and_giving_nothing_is_not)
{
	struct block b = { 0 };

	start();
	memory_give(&memory, &holders[0], &b);
	CHECK(!memory.released);
	b = memory_take(&memory, &holders[0], 4096, 4096);
	CHECK(!memory.released);
	memory_give(&memory, &holders[0], &b);
	CHECK(memory.released);
	expect_all_back(&holders[0]);
}

static unsigned n_resident(const uint8_t *at, size_t size)
{
	static unsigned char there[BUDGET / MEMORY_PAGE];
	unsigned n = 0;

	CHECK_EQ("mincore", mincore((void *) at, size, there), 0);
	for (size_t i = 0; i < size / MEMORY_PAGE; i++)
		n += there[i] & 1;
	return n;
}

TEST(pages_go_back_to_the_kernel_once_they_were_idle_for_a_while)
{
	struct block b;
	uint8_t *at;

	start();
	CHECK(!memory_cool(&memory));
	CHECK_EQ("at first", n_resident(memory.base, memory.shared_size), 0);
	b = memory_take(&memory, &holders[0], MEMORY_PIECE, MEMORY_PIECE);
	at = b.at;
	memset(at, 0x55, MEMORY_PIECE);
	memory_give(&memory, &holders[0], &b);
	CHECK_EQ("in use lately", n_resident(at, MEMORY_PIECE), 64);
	CHECK(memory_cool(&memory));
	CHECK_EQ("in use lately", n_resident(at, MEMORY_PIECE), 64);
	CHECK(!memory_cool(&memory));
	CHECK_EQ("cold", n_resident(memory.base, memory.shared_size), 0);
	CHECK_EQ("zero again", at[4096], 0);
	expect_all_back(&holders[0]);
}

TEST(pages_in_use_stay_and_so_do_their_neighbours)
{
	struct block small, large;

	start();
	large = memory_take(&memory, &holders[0], MEMORY_PIECE, MEMORY_PIECE);
	small = memory_take(&memory, &holders[0], 4096, 4096);
	memset(large.at, 0x55, large.size);
	memset(small.at, 0x66, small.size);
	for (unsigned i = 0; i < 5; i++)
		CHECK(memory_cool(&memory));
	CHECK_EQ("large", n_resident(large.at, large.size), 64);
	for (unsigned i = 0; i < large.size; i++)
		if (large.at[i] != 0x55)
			CHECK_EQ("lost at", i, -1);
	CHECK_EQ("small", small.at[0] + small.at[4095], 2 * 0x66);
	memory_give(&memory, &holders[0], &large);
	memory_give(&memory, &holders[0], &small);
	(void) memory_cool(&memory);
	CHECK(!memory_cool(&memory));
	CHECK_EQ("cold", n_resident(memory.base, memory.shared_size), 0);
	expect_all_back(&holders[0]);
}

TEST(what_never_began_can_be_ended)
{
	struct memory none = { 0 };

	memory_deinit(&none);
	memory_deinit(&none);
	CHECK(!none.base);
}

TEST(a_budget_that_grew_admits_more_clients)
{
	struct failure why = { 0 };
	struct holder seven[7];
	struct memory grown;

	CHECK_EQ("", memory_init(&grown, 64 << 20, 4, 512, &why), 0);
	for (unsigned i = 0; i < 4; i++)
		memory_admit(&grown, &seven[i]);
	CHECK_EQ("", memory_grow(&grown, 3), 0);
	for (unsigned i = 4; i < 7; i++)
		memory_admit(&grown, &seven[i]);
	CHECK_EQ("left", grown.n_floors_free, 0);
	for (unsigned i = 0; i < 7; i++) {
		memset(seven[i].floor, (int) i + 1, grown.floor_size);
		for (unsigned j = 0; j < i; j++)
			CHECK(seven[i].floor != seven[j].floor);
	}
	for (unsigned i = 0; i < 7; i++) {
		CHECK_EQ("its own", seven[i].floor[grown.floor_size - 1], i + 1);
		memory_dismiss(&grown, &seven[i]);
	}
	CHECK_EQ("all", grown.n_floors_free, 7);
	memory_deinit(&grown);
}

TEST(a_budget_says_how_many_clients_it_suffices_for)
{
	struct failure why = { 0 };

	CHECK_EQ("", memory_suffices(64 << 20, 256, 512, &why), 0);
	CHECK_EQ("", memory_suffices(64 << 20, 100000, 512, &why), -EINVAL);
	CHECK(strstr(why.text, "Memory= is too small") != NULL);
}
