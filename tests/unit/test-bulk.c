/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may zero or discard next: a few at once, connection by connection. */
#include "check.h"

#include "base/attr.h"
#include "export/conn.h"

#define N_SLOTS 130u
#define SMALL 4096u
#define LARGE (256u << 20)

static struct loop loop;
static struct conn conns[3];
static struct slot slots[3][N_SLOTS];
static char said[4 * N_SLOTS];          /* a letter for each step that has begun: its connection */
static struct slot *running[4 * N_SLOTS];
static size_t n_said, n_begun, n_over;

static void note(struct slot *slot)
{
	CHECK_EQ("waits no more", slot->n_io, 0);
	said[n_said++] = (char) ('a' + (slot->conn - conns));
}

static void takes_its_time(struct slot *slot)
{
	note(slot);
	running[n_begun++] = slot;
}

static void ends_at_once(struct slot *slot)
{
	note(slot);
	bulk_end(slot);
}

static void goes_on_once(struct slot *slot)
{
	ends_at_once(slot);
	bulk_begin(slot, LARGE, ends_at_once);
}

static void start(void)
{
	memset(&loop, 0, sizeof loop);
	memset(said, 0, sizeof said);
	n_said = n_begun = n_over = 0;
	for (size_t c = 0; c < ARRAY_LEN(conns); c++) {
		conns[c] = (struct conn) { .loop = &loop };
		for (unsigned i = 0; i < N_SLOTS; i++)
			slots[c][i] = (struct slot) { .conn = &conns[c] };
	}
}

static void begin(unsigned c, unsigned n, uint64_t size, void (*step)(struct slot *slot))
{
	for (unsigned i = 0; i < n; i++)
		bulk_begin(&slots[c][i], size, step);
}

/* The step that has been under way for longest. */
static void end_one(void)
{
	bulk_end(running[n_over++]);
}

static void end_all(void)
{
	while (n_over < n_begun)
		end_one();
	CHECK(!loop.bulk.first && !loop.bulk.last);
	CHECK_EQ("places", loop.bulk.n_taken, 0);
}

TEST(only_a_few_steps_are_under_way)
{
	start();
	begin(0, N_SLOTS, LARGE, takes_its_time);
	CHECK_STR("", said, "aa");
	CHECK_EQ("waits", slots[0][2].n_io, 1);
	end_one();
	CHECK_STR("", said, "aaa");
	end_all();
	CHECK_EQ("steps", n_said, N_SLOTS);
}

TEST(of_small_steps_more_are_under_way_but_none_goes_past_a_large_one)
{
	start();
	begin(0, N_SLOTS, SMALL, takes_its_time);
	CHECK_STR("", said, "aaaaaaaa");
	begin(1, 1, LARGE, takes_its_time);
	end_one();
	CHECK_STR("behind the one before", said, "aaaaaaaaa");
	for (unsigned i = 0; i < 3; i++)
		end_one();
	CHECK_STR("", said, "aaaaaaaaa");
	end_one();
	CHECK_STR("", said, "aaaaaaaaab");
	end_all();
}

TEST(one_client_with_many_does_not_keep_others_waiting)
{
	start();
	begin(0, 6, LARGE, takes_its_time);
	begin(1, 1, LARGE, takes_its_time);
	begin(2, 3, LARGE, takes_its_time);
	CHECK_STR("", said, "aa");
	end_all();
	CHECK_STR("", said, "aaabcacaca");
}

TEST(steps_that_are_over_at_once_make_way)
{
	start();
	begin(0, 2, LARGE, takes_its_time);
	begin(1, N_SLOTS, LARGE, ends_at_once);
	begin(2, 1, LARGE, takes_its_time);
	CHECK_STR("", said, "aa");
	end_one();
	CHECK_STR("", said, "aabc");
	end_one();
	CHECK_EQ("steps", n_said, 2 + N_SLOTS + 1);
	end_all();
}

TEST(the_next_step_of_a_request_stands_behind_the_others)
{
	start();
	begin(0, 2, LARGE, takes_its_time);
	begin(1, 2, LARGE, goes_on_once);
	begin(2, 2, LARGE, ends_at_once);
	end_one();
	CHECK_STR("", said, "aabcbcbb");
	end_all();
}
