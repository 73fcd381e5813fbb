/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slots and pieces: clean when they come, used again when they went. */
#include "check.h"

#include "base/attr.h"
#include "export/slot.h"

#define N_SLOTS 100u            /* several slabs */
#define N_PIECES 200u

static struct slot_pool pool;
static char a_connection;       /* only its address matters */

static struct slot *new_slot(void)
{
	return slot_new(&pool, (struct conn *) &a_connection);
}

static unsigned n_slabs(void)
{
	unsigned n = 0;

	/* The first word of a slab links it to the next. */
	for (void **slab = (void **) pool.slabs; slab; slab = *slab)
		n++;
	return n;
}

static void expect_clean_slot(const struct slot *slot)
{
	CHECK(slot->conn == (struct conn *) &a_connection);
	CHECK(slot->pieces_end == &slot->pieces);
	CHECK_EQ("request", slot->req.length | slot->req.offset | slot->req.cookie, 0);
	CHECK(!slot->command && !slot->pieces && !slot->first_used && !slot->starved);
	CHECK_EQ("error", slot->error, NBD_SUCCESS);
	CHECK(!slot->n_io && !slot->sentence && !slot->at && !slot->by_hand_until);
}

TEST(slots_are_distinct_and_clean)
{
	static struct slot *slots[N_SLOTS];

	slot_pool_init(&pool);
	for (unsigned i = 0; i < N_SLOTS; i++) {
		slots[i] = new_slot();
		CHECK(slots[i]);
		if (!slots[i])
			return;
		expect_clean_slot(slots[i]);
		slots[i]->at = i;
	}
	for (unsigned i = 0; i < N_SLOTS; i++)
		CHECK_EQ("its own", slots[i]->at, i);
	for (unsigned i = 0; i < N_SLOTS; i++)
		slot_free(&pool, slots[i]);
	slot_pool_deinit(&pool);
}

TEST(a_slot_that_was_used_comes_back_clean)
{
	struct slot *slot, *again;

	slot_pool_init(&pool);
	slot = new_slot();
	slot->at = 1;
	slot->req = (struct request) { .flags = 1, .cookie = 3, .offset = 4, .length = 5 };
	slot->error = NBD_EIO;
	slot->sentence = "broken";
	slot->by_hand_until = 7;
	slot->pieces_end = NULL;
	slot_free(&pool, slot);
	again = new_slot();
	CHECK(again == slot);
	expect_clean_slot(again);
	slot_free(&pool, again);
	slot_pool_deinit(&pool);
}

TEST(the_pool_grows_only_for_what_is_in_use_at_once)
{
	static struct slot *slots[N_SLOTS];
	unsigned before = 0;

	slot_pool_init(&pool);
	CHECK_EQ("at first", n_slabs(), 0);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < N_SLOTS; i++)
			slots[i] = new_slot();
		if (round == 0)
			before = n_slabs();
		CHECK_EQ("slabs", n_slabs(), before);
		for (unsigned i = 0; i < N_SLOTS; i++)
			slot_free(&pool, slots[(i * 7 + round) % N_SLOTS]);
	}
	CHECK(before > 1 && before < N_SLOTS);
	slot_pool_deinit(&pool);
	CHECK_EQ("at last", n_slabs(), 0);
}

TEST(the_first_piece_lies_in_the_slot_and_more_come_from_the_pool)
{
	struct slot *slot;
	struct piece *first, *second, *third;

	slot_pool_init(&pool);
	slot = new_slot();
	first = piece_new(&pool, slot);
	CHECK(first == &slot->first && !first->pooled && slot->first_used);
	CHECK_EQ("slabs", n_slabs(), 1);
	second = piece_new(&pool, slot);
	third = piece_new(&pool, slot);
	CHECK(second->pooled && third->pooled && second != third);
	CHECK(second != first && third != first);
	CHECK(first->slot == slot && second->slot == slot && third->slot == slot);

	/* Once the first is free it is the next to be had, whatever else is in use. */
	piece_free(&pool, first);
	CHECK(!slot->first_used);
	CHECK(piece_new(&pool, slot) == first);
	piece_free(&pool, second);
	CHECK(slot->first_used);
	CHECK(piece_new(&pool, slot) == second);

	piece_free(&pool, third);
	piece_free(&pool, second);
	piece_free(&pool, first);
	slot_free(&pool, slot);
	slot_pool_deinit(&pool);
}

TEST(a_piece_that_was_used_comes_back_clean)
{
	struct slot *slot;

	slot_pool_init(&pool);
	slot = new_slot();
	for (unsigned i = 0; i < 2; i++) {
		struct piece *piece = piece_new(&pool, slot), *again;

		piece->start = 1;
		piece->length = piece->moved = piece->data_len = 2;
		piece->in_tail = piece->mends = piece->durable = piece->evicted = true;
		piece->next = piece;
		piece->out = (struct out) { .sent = 3, .header_len = 4, .last = slot };
		piece_free(&pool, piece);
		again = piece_new(&pool, slot);
		CHECK(again == piece);
		CHECK(!again->next && !again->start && !again->length && !again->moved);
		CHECK(!again->in_tail && !again->mends && !again->durable && !again->evicted);
		CHECK(!again->data_len && !again->out.sent && !again->out.last);
		CHECK_EQ("pooled", again->pooled, i == 1);
	}
	slot_pool_deinit(&pool);
}

TEST(slots_share_the_pool_of_pieces)
{
	static struct piece *pieces[2][N_PIECES];
	struct slot *slots[2];
	unsigned before = 0;

	slot_pool_init(&pool);
	slots[0] = new_slot();
	slots[1] = new_slot();
	for (unsigned round = 0; round < 10; round++) {
		struct slot *slot = slots[round % 2];
		struct piece **mine = pieces[round % 2];

		for (unsigned i = 0; i < N_PIECES; i++) {
			mine[i] = piece_new(&pool, slot);
			mine[i]->start = i;
		}
		for (unsigned i = 0; i < N_PIECES; i++) {
			CHECK_EQ("its own", mine[i]->start, i);
			CHECK(mine[i]->slot == slot);
			piece_free(&pool, mine[i]);
		}
		if (round == 0)
			before = n_slabs();
		CHECK_EQ("slabs", n_slabs(), before);
	}
	slot_free(&pool, slots[0]);
	slot_free(&pool, slots[1]);
	slot_pool_deinit(&pool);
}
