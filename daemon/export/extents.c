/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/extents.h"

#include <errno.h>

#include "dirty/view.h"
#include "export/conn.h"
#include "export/send.h"

static uint32_t extent_size(const struct slot *slot)
{
	return slot->conn->mode == NBD_MODE_EXTENDED ? 16 : 8;
}

/* Sending */

static void put_header(struct slot *slot, struct piece *piece, uint32_t id, uint32_t n, bool last)
{
	uint16_t flags = last ? NBD_REPLY_FLAG_DONE : 0;

	piece->out.header_len = (uint8_t) put_block_status(piece->out.header, slot->conn->mode,
	                                                   &slot->req, flags, id, n);
}

/* The last part of the last chunk carries the slot. */
static void queue_part(struct slot *slot, struct piece *piece, bool last)
{
	piece->out.piece = piece;
	piece->out.last = last ? slot : NULL;
	conn_queue(slot->conn, &piece->out);
}

int extents_queue_one(struct slot *slot, uint32_t id, uint64_t flags, bool last)
{
	struct piece *piece = piece_new(&loop_of(slot)->slots, slot);

	if (!piece)
		return -ENOMEM;
	put_header(slot, piece, id, 1, last);
	piece->out.body = piece->extent;
	piece->out.body_len = (uint32_t) put_extent(piece->extent, slot->conn->mode,
	                                            slot->req.length, flags);
	queue_part(slot, piece, last);
	return 0;
}

static void drop_pieces(struct slot *slot, struct piece *piece)
{
	struct loop *loop = loop_of(slot);
	struct piece *next;

	for (; piece; piece = next) {
		next = piece->next;
		memory_give(&loop->memory, &slot->conn->holder, &piece->block);
		piece_free(&loop->slots, piece);
	}
}

void extents_drop(struct slot *slot)
{
	drop_pieces(slot, slot->pieces);
	slot->pieces = NULL;
}

/* Block by block; those that stayed empty go back first. */
void extents_queue(struct slot *slot, uint32_t id, bool last)
{
	uint32_t left = slot->n_extents * extent_size(slot);
	struct piece *first = slot->pieces, *piece, *next;

	put_header(slot, first, id, slot->n_extents, last);
	slot->pieces = NULL;
	for (piece = first; left > piece->block.size; piece = piece->next) {
		piece->out.body_len = piece->block.size;
		left -= piece->block.size;
	}
	piece->out.body_len = left;
	drop_pieces(slot, piece->next);
	piece->next = NULL;
	for (piece = first; piece; piece = next) {
		next = piece->next;
		piece->out.body = piece->block.at;
		queue_part(slot, piece, last && !next);
	}
}

/* Looking up */

/* Appends extents to the blocks in slot->pieces, equal neighbours merged. */
struct writer {
	const struct slot *slot;
	struct piece *piece;
	uint32_t used;                  /* bytes of the piece's block */
	uint32_t n, limit;              /* extents */
	uint64_t length, flags;         /* the one that is still growing */
};

static void put_one(struct writer *w)
{
	if (w->used == w->piece->block.size) {
		w->piece = w->piece->next;
		w->used = 0;
	}
	w->used += (uint32_t) put_extent(w->piece->block.at + w->used, w->slot->conn->mode,
	                                 w->length, w->flags);
	w->n++;
}

/* False when there is no room for another one. */
static bool add_extent(struct writer *w, uint64_t length, uint64_t flags)
{
	if (w->length && w->flags == flags) {
		w->length += length;
		return true;
	}
	if (w->length) {
		put_one(w);
		w->length = 0;
		if (w->n == w->limit)
			return false;
	}
	w->length = length;
	w->flags = flags;
	return true;
}

static uint32_t room_for(const struct slot *slot)
{
	uint64_t bytes = 0;

	if (slot->req.flags & NBD_CMD_FLAG_REQ_ONE)
		return 1;
	for (const struct piece *piece = slot->pieces; piece; piece = piece->next)
		bytes += piece->block.size;
	bytes /= extent_size(slot);
	return bytes < NBD_MAX_EXTENTS ? (uint32_t) bytes : NBD_MAX_EXTENTS;
}

static void find_allocation(struct writer *w, uint64_t at, uint64_t end)
{
	int fd = export_of(w->slot)->device.fd;
	bool room = true, hole = false;

	while (at < end && room) {
		uint64_t stop = hole ? device_extent_after_hole(fd, at, end, &hole) :
		                       device_extent(fd, at, end, &hole);

		room = add_extent(w, stop - at, hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
		at = stop;
	}
}

static void find_dirty(struct writer *w, const struct view *view, uint64_t at, uint64_t end)
{
	bool room = true;

	while (at < end && room) {
		uint64_t stop;
		bool dirty = view_extent(view, at, end, &stop);

		room = add_extent(w, stop - at, dirty ? NBD_STATE_DIRTY : 0);
		at = stop;
	}
}

/* In a thread of the pool. */
static void look_up(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);
	struct writer w = { .slot = slot, .piece = slot->pieces, .limit = room_for(slot) };
	uint64_t at = slot->req.offset, end = at + slot->req.length;

	if (slot->view)
		find_dirty(&w, slot->view, at, end);
	else
		find_allocation(&w, at, end);
	if (w.length)
		put_one(&w);
	slot->n_extents = w.n;
	view_unref(take_ptr(slot->view));
}

void extents_look_up(struct slot *slot, struct view *view, void (*done)(struct job *job))
{
	struct loop *loop = loop_of(slot);

	slot->view = view;
	slot->job = (struct job) { .run = look_up, .done = done };
	pool_submit(&loop->export->pool, &slot->job, &loop->ring.mail);
}

static bool add_block(struct slot *slot, uint32_t size, int *ret_error)
{
	struct loop *loop = loop_of(slot);
	struct piece *piece = piece_new(&loop->slots, slot);

	*ret_error = -ENOMEM;
	if (!piece)
		return false;
	piece->block = memory_take(&loop->memory, &slot->conn->holder, size,
	                           size < MEMORY_PAGE ? size : MEMORY_PAGE);
	if (!piece->block.at) {
		piece_free(&loop->slots, piece);
		*ret_error = -EAGAIN;
		return false;
	}
	*slot->pieces_end = piece;
	slot->pieces_end = &piece->next;
	return true;
}

int extents_take_room(struct slot *slot, uint64_t most)
{
	uint64_t want;
	int r = 0;

	if (slot->req.flags & NBD_CMD_FLAG_REQ_ONE)
		most = 1;
	want = (most < NBD_MAX_EXTENTS ? most : NBD_MAX_EXTENTS) * extent_size(slot);
	slot->pieces_end = &slot->pieces;
	while (want) {
		struct piece **at = slot->pieces_end;

		if (!add_block(slot, want < MEMORY_PIECE ? (uint32_t) want : MEMORY_PIECE, &r))
			break;
		want -= (*at)->block.size < want ? (*at)->block.size : want;
	}
	return slot->pieces ? 0 : r;
}
