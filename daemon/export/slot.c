/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/slot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SLAB_SLOTS 16u
#define SLAB_PIECES 32u

/* What malloc() gave, so that it can be given back at the end. */
struct slab {
	struct slab *next;
	union {
		struct slot slots[SLAB_SLOTS];
		struct piece pieces[SLAB_PIECES];
	};
};

void slot_pool_init(struct slot_pool *pool)
{
	*pool = (struct slot_pool) { 0 };
}

void slot_pool_deinit(struct slot_pool *pool)
{
	struct slab *slab, *next;

	for (slab = pool->slabs; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
	slot_pool_init(pool);
}

static struct slab *grow(struct slot_pool *pool)
{
	struct slab *slab = malloc(sizeof *slab);

	if (slab) {
		slab->next = pool->slabs;
		pool->slabs = slab;
	}
	return slab;
}

static void put_slot(struct slot_pool *pool, struct slot *slot)
{
	slot->next = pool->slots;
	pool->slots = slot;
}

static void put_piece(struct slot_pool *pool, struct piece *piece)
{
	piece->next = pool->pieces;
	pool->pieces = piece;
}

bool slot_at_hand(struct slot_pool *pool)
{
	struct slab *slab = pool->slots ? NULL : grow(pool);

	for (unsigned i = 0; slab && i < SLAB_SLOTS; i++)
		put_slot(pool, &slab->slots[i]);
	return pool->slots;
}

struct slot *slot_new(struct slot_pool *pool, struct conn *conn)
{
	struct slot *slot;

	if (!slot_at_hand(pool))
		return NULL;
	slot = pool->slots;
	pool->slots = slot->next;
	memset(slot, 0, sizeof *slot);
	slot->conn = conn;
	slot->pieces_end = &slot->pieces;
	return slot;
}

void slot_free(struct slot_pool *pool, struct slot *slot)
{
	assert(slot->n_io == 0 && !slot->first_used && !slot->pieces && !slot->starved);
	assert(!slot->view);
	assert(!slot->op.in_flight && !slot->range.held && !slot->range.waiting);
	put_slot(pool, slot);
}

struct piece *piece_new(struct slot_pool *pool, struct slot *slot)
{
	struct piece *piece = &slot->first;
	bool pooled = slot->first_used;

	if (pooled) {
		piece = pool->pieces;
		if (!piece) {
			struct slab *slab = grow(pool);

			for (unsigned i = 0; slab && i < SLAB_PIECES; i++)
				put_piece(pool, &slab->pieces[i]);
			piece = pool->pieces;
			if (!piece)
				return NULL;
		}
		pool->pieces = piece->next;
	}
	memset(piece, 0, sizeof *piece);
	piece->slot = slot;
	piece->pooled = pooled;
	if (!pooled)
		slot->first_used = true;
	return piece;
}

void piece_free(struct slot_pool *pool, struct piece *piece)
{
	assert(!piece->block.at && !piece->op.in_flight && !piece->range.held &&
	       !piece->range.waiting);
	if (piece->pooled)
		put_piece(pool, piece);
	else
		piece->slot->first_used = false;
}
