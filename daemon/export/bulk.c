/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/bulk.h"

#include <assert.h>
#include <stddef.h>

#include "export/conn.h"

/* Behind the other connections. */
static void join_line(struct bulk *bulk, struct conn *conn)
{
	conn->next_bulk = NULL;
	if (bulk->last)
		bulk->last->next_bulk = conn;
	else
		bulk->first = conn;
	bulk->last = conn;
}

static void leave_line(struct bulk *bulk)
{
	bulk->first = bulk->first->next_bulk;
	if (!bulk->first)
		bulk->last = NULL;
}

/* The next one, if there is a place for it.  A small one does not go past a large one. */
static struct slot *next_slot(struct bulk *bulk)
{
	struct conn *conn = bulk->first;
	struct slot *slot = conn ? conn->bulk : NULL;

	if (!slot || bulk->n_taken + slot->n_places > BULK_PLACES)
		return NULL;
	leave_line(bulk);
	conn->bulk = slot->next;
	if (conn->bulk)
		join_line(bulk, conn);
	return slot;
}

/* A step that is over at once gives its place back in here: that one is taken, too. */
static void serve(struct bulk *bulk)
{
	struct slot *slot;

	if (bulk->serving)
		return;
	bulk->serving = true;
	while ((slot = next_slot(bulk))) {
		bulk->n_taken += slot->n_places;
		slot->n_io--;
		slot->step(slot);
	}
	bulk->serving = false;
}

void bulk_begin(struct slot *slot, uint64_t size, void (*step)(struct slot *slot))
{
	struct conn *conn = slot->conn;
	struct bulk *bulk = &conn->loop->bulk;

	slot->step = step;
	slot->n_places = size < BULK_LARGE ? 1 : BULK_PLACES_LARGE;
	slot->next = NULL;
	slot->n_io++;
	if (conn->bulk) {
		conn->last_bulk->next = slot;
	} else {
		conn->bulk = slot;
		join_line(bulk, conn);
	}
	conn->last_bulk = slot;
	serve(bulk);
}

void bulk_end(struct slot *slot)
{
	struct bulk *bulk = &slot->conn->loop->bulk;

	assert(bulk->n_taken >= slot->n_places);
	bulk->n_taken -= slot->n_places;
	serve(bulk);
}
