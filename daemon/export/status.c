/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_BLOCK_STATUS: base:allocation and qemu:allocation-depth.
 *
 * A block device cannot tell where it holds nothing: it is one extent of data.  A file's holes
 * are looked up by the pool, since a fragmented one takes thousands of calls; the extents go into
 * blocks of the memory budget.  With little memory fewer extents are described, which the
 * protocol allows: the client asks again from where they ended.
 */
#include <errno.h>

#include "export/actions.h"
#include "export/conn.h"
#include "export/send.h"

#define ALLOCATION_DEPTH_LOCAL 1u       /* this layer, and there is no other */

static uint32_t extent_size(const struct slot *slot)
{
	return slot->conn->mode == NBD_MODE_EXTENDED ? 16 : 8;
}

static bool wants(const struct slot *slot, unsigned i)
{
	return slot->status_wanted >> i & 1;
}

/* The chunk of one context ends here; the last of the reply carries the slot. */
static void queue_part(struct slot *slot, struct piece *piece, bool last)
{
	piece->out.piece = piece;
	piece->out.last = last ? slot : NULL;
	conn_queue(slot->conn, &piece->out);
}

static void put_header(struct slot *slot, struct piece *piece, uint32_t id, uint32_t n, bool last)
{
	piece->out.header_len = (uint8_t) put_block_status(
		piece->out.header, slot->conn->mode, &slot->req, last ? NBD_REPLY_FLAG_DONE : 0, id, n);
}

/* One extent over the whole range. */
static void queue_single(struct slot *slot, uint32_t id, uint64_t flags, bool last)
{
	struct piece *piece = piece_new(&loop_of(slot)->slots, slot);

	if (!piece) {
		conn_kill(slot->conn, REASON_LIMIT);
		if (last)
			slot_answer(slot, NBD_ENOMEM, NULL);
		return;
	}
	put_header(slot, piece, id, 1, last);
	piece->out.body = piece->extent;
	piece->out.body_len = (uint32_t) put_extent(piece->extent, slot->conn->mode,
	                                            slot->req.length, flags);
	queue_part(slot, piece, last);
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

/* What the job found, block by block; blocks that stayed empty go back first. */
static void queue_found(struct slot *slot, uint32_t id, bool last)
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

/* All contexts that were asked for, in the order of their selection. */
static void reply(struct slot *slot)
{
	struct conn *conn = slot->conn;
	uint64_t wanted = slot->status_wanted;

	for (unsigned i = 0; i < conn->n_contexts && wanted; i++) {
		bool last;

		if (!wants(slot, i))
			continue;
		wanted &= ~(1ull << i);
		last = wanted == 0;
		if (conn->contexts[i] == NBD_CONTEXT_ID_ALLOCATION_DEPTH)
			queue_single(slot, conn->contexts[i], ALLOCATION_DEPTH_LOCAL, last);
		else if (slot->pieces)
			queue_found(slot, conn->contexts[i], last);
		else
			queue_single(slot, conn->contexts[i], 0, last);
	}
}

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

/* In a thread of the pool. */
static void look_up(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);
	struct writer w = { .slot = slot, .piece = slot->pieces, .limit = room_for(slot) };
	uint64_t at = slot->req.offset, end = at + slot->req.length;
	int fd = export_of(slot)->device.fd;
	bool room = true, hole = false;

	while (at < end && room) {
		uint64_t stop = (hole ? device_extent_after_hole : device_extent)(fd, at, end, &hole);

		room = add_extent(&w, stop - at, hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
		at = stop;
	}
	if (w.length)
		put_one(&w);
	slot->n_extents = w.n;
}

static void on_looked_up(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);

	slot->n_io--;
	if (!slot->conn->dead) {
		reply(slot);
		return;
	}
	drop_pieces(slot, slot->pieces);
	slot->pieces = NULL;
	slot_answer(slot, NBD_EIO, NULL);
}

/* As many blocks as the longest reply needs, or as there are, but one.  False without that. */
static bool find_extents(struct slot *slot)
{
	struct loop *loop = loop_of(slot);
	uint64_t most = slot->req.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : slot->req.length / 512 + 1;
	uint64_t want = (most < NBD_MAX_EXTENTS ? most : NBD_MAX_EXTENTS) * extent_size(slot);

	while (want) {
		uint32_t size = want < MEMORY_PIECE ? (uint32_t) want : MEMORY_PIECE;
		struct block block = memory_take(&loop->memory, &slot->conn->holder, size,
		                                 size < MEMORY_PAGE ? size : MEMORY_PAGE);
		bool had = block.at != NULL;
		struct piece *piece = had ? piece_new(&loop->slots, slot) : NULL;

		if (!piece)
			memory_give(&loop->memory, &slot->conn->holder, &block);
		if (!had && !slot->pieces)
			return false;
		if (!piece && !slot->pieces) {
			slot_answer(slot, NBD_ENOMEM, NULL);
			return true;
		}
		if (!piece)
			break;
		piece->block = block;
		*slot->pieces_end = piece;
		slot->pieces_end = &piece->next;
		want -= block.size < want ? block.size : want;
	}
	slot->n_io++;
	slot->job = (struct job) { .run = look_up, .done = on_looked_up };
	pool_submit(&loop->export->pool, &slot->job, &loop->ring.mail);
	return true;
}

static bool needs_look_up(const struct slot *slot)
{
	const struct conn *conn = slot->conn;

	if (conn->export->device.is_block)
		return false;
	for (unsigned i = 0; i < conn->n_contexts; i++)
		if (wants(slot, i) && conn->contexts[i] == NBD_CONTEXT_ID_BASE_ALLOCATION)
			return true;
	return false;
}

void start_block_status(struct slot *slot)
{
	struct conn *conn = slot->conn;

	if (conn->n_contexts == 0) {
		slot_answer(slot, NBD_EINVAL, "no metadata context was negotiated");
		return;
	}
	if (slot->req.length == 0) {
		slot_answer(slot, NBD_EINVAL, "a length of zero has no status");
		return;
	}
	if (!slot->status_wanted)
		slot->status_wanted = conn->n_contexts == 64 ? UINT64_MAX :
		                      (1ull << conn->n_contexts) - 1;
	if (!needs_look_up(slot))
		reply(slot);
	else if (!find_extents(slot))
		conn_starve(slot, find_extents);
}
