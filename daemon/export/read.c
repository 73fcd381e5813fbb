/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_READ: device to reply.
 *
 * A simple reply, and a chunk that must not be fragmented (DF), begin with a header that
 * says whether all of it could be read: such a reply is whole, and has all its memory before it
 * starts.  Elsewhere each piece is a chunk of its own, sent when it has been read, in any order
 * ("Structured replies": chunks of one reply may come in any order); only the last is
 * marked done.
 */
#include "export/read.h"

#include <errno.h>

#include "export/actions.h"
#include "export/conn.h"
#include "export/io.h"
#include "export/send.h"

static uint64_t end_of(const struct slot *slot)
{
	return slot->req.offset + slot->req.length;
}

/* Whether one header must speak for all of the data. */
static bool undivided(const struct slot *slot)
{
	return slot->conn->mode == NBD_MODE_SIMPLE || slot->req.flags & NBD_CMD_FLAG_DF;
}

/* Nothing is under way and nothing more will be started: is there an error to tell? */
static void finish_failed(struct slot *slot)
{
	struct conn *conn = slot->conn;

	if (slot->n_io || slot->starved)
		return;
	while (slot->pieces) {
		struct piece *piece = slot->pieces;

		slot->pieces = piece->next;
		memory_give(&conn->loop->memory, &conn->holder, &piece->block);
		piece_free(&conn->loop->slots, piece);
	}
	slot_answer(slot, slot->error, slot->sentence);
}

/* A reply that is not whole: the chunk of one piece, or of one hole. */
static void queue_chunk(struct piece *piece, bool hole)
{
	struct slot *slot = piece->slot;
	bool last = slot->at == end_of(slot) && slot->n_io == 0;
	uint64_t offset = piece->start + piece->data_at;
	uint16_t flags = last ? NBD_REPLY_FLAG_DONE : 0;
	struct out *out = &piece->out;

	if (slot->conn->mode == NBD_MODE_SIMPLE)
		out->header_len = (uint8_t) put_simple_reply(out->header, slot->req.cookie, NBD_SUCCESS);
	else
		out->header_len = (uint8_t) (hole ? put_offset_hole : put_offset_data)(
			out->header, slot->conn->mode, &slot->req, flags, offset, piece->data_len);
	out->piece = piece;
	out->last = last ? slot : NULL;
	if (!hole) {
		out->body = piece->block.at + piece->data_at;
		out->body_len = piece->data_len;
	}
	slot->conn->stats.bytes_read += piece->data_len;
	conn_queue(slot->conn, out);
}

/* All pieces of a whole reply are there: one header, and their bytes in order. */
static void queue_whole(struct slot *slot)
{
	struct piece *piece = slot->pieces, *next;
	struct out *out = &piece->out;
	struct conn *conn = slot->conn;

	slot->pieces = NULL;
	if (conn->mode == NBD_MODE_SIMPLE)
		out->header_len = (uint8_t) put_simple_reply(out->header, slot->req.cookie, NBD_SUCCESS);
	else
		out->header_len = (uint8_t) put_offset_data(out->header, conn->mode, &slot->req,
		                                            NBD_REPLY_FLAG_DONE, slot->req.offset,
		                                            (uint32_t) slot->req.length);
	conn->stats.bytes_read += slot->req.length;
	for (; piece; piece = next) {
		next = piece->next;
		piece->out.piece = piece;
		piece->out.body = piece->block.at + piece->data_at;
		piece->out.body_len = piece->data_len;
		piece->out.last = next ? NULL : slot;
		conn_queue(conn, &piece->out);
	}
}

static void on_read(struct piece *piece, int error)
{
	struct slot *slot = piece->slot;
	struct conn *conn = slot->conn;

	if (error)
		slot_fail(slot, error, "reading from the device failed");
	if (!slot->whole && (error || slot->error || conn->dead)) {
		memory_give(&conn->loop->memory, &conn->holder, &piece->block);
		piece_free(&conn->loop->slots, piece);
	}
	if (conn->dead)
		slot_fail(slot, EIO, NULL);
	if (slot->error)
		finish_failed(slot);
	else if (!slot->whole)
		queue_chunk(piece, false);
	else if (slot->n_io == 0 && slot->at == end_of(slot))
		queue_whole(slot);
}

/* Where the stretch that begins at slot->at ends: by extent, tail and the size of a piece. */
static uint64_t stretch(struct slot *slot, bool *ret_hole)
{
	struct device *dev = &export_of(slot)->device;
	uint64_t end = end_of(slot), start = sector_down(dev, slot->at);

	*ret_hole = false;
	if (!undivided(slot) && !dev->is_block) {
		ring_blocks(&loop_of(slot)->ring);
		end = device_read_extent(dev, &loop_of(slot)->known_data, slot->at, end,
		                         ret_hole);
		ring_goes_on(&loop_of(slot)->ring);
		if (*ret_hole)
			return end;
	}
	if (slot->at < dev->direct_size && end > dev->direct_size)
		end = dev->direct_size;
	return end - start > MEMORY_PIECE ? start + MEMORY_PIECE : end;
}

/* The piece for [slot->at, end), whose buffer is `block`. */
static bool add_piece(struct slot *slot, uint64_t end, struct block block)
{
	struct loop *loop = loop_of(slot);
	struct device *dev = &loop->export->device;
	struct piece *piece = piece_new(&loop->slots, slot);
	uint64_t start = sector_down(dev, slot->at);

	if (!piece) {
		memory_give(&loop->memory, &slot->conn->holder, &block);
		return false;
	}
	piece->in_tail = slot->at >= dev->direct_size;
	if (piece->in_tail)
		start = slot->at;
	if (block.at && end - start > block.size)
		end = start + block.size;
	piece->block = block;
	piece->start = start;
	piece->length = (uint32_t) ((piece->in_tail ? end : sector_up(dev, end)) - start);
	piece->data_at = (uint32_t) (slot->at - start);
	piece->data_len = (uint32_t) (end - slot->at);
	slot->at = end;

	if (!block.at) {
		queue_chunk(piece, true);
		return true;
	}
	if (slot->whole) {
		*slot->pieces_end = piece;
		slot->pieces_end = &piece->next;
	}
	piece_read(piece, on_read);
	return true;
}

static uint32_t buffer_for(const struct slot *slot, uint64_t end)
{
	const struct device *dev = &slot->conn->export->device;

	return (uint32_t) (sector_up(dev, end) - sector_down(dev, slot->at));
}

/* Starts as many chunks as there is memory for.  False while some must wait. */
static bool read_more(struct slot *slot)
{
	struct loop *loop = loop_of(slot);

	while (slot->at < end_of(slot) && !slot->error) {
		struct block block = { 0 };
		uint64_t end;
		bool hole;

		end = stretch(slot, &hole);
		if (!hole) {
			uint32_t want = buffer_for(slot, end);

			block = memory_take(&loop->memory, &slot->conn->holder, want,
			                    undivided(slot) ? want : loop->export->device.sector);
			if (!block.at)
				return false;
		}
		if (!add_piece(slot, end, block))
			slot_fail(slot, ENOMEM, NULL);
	}
	return true;
}

/* What memory_has() must grant: pieces of the largest size, and the rest rounded up. */
static uint64_t memory_for_whole(const struct slot *slot)
{
	uint64_t all = buffer_for(slot, end_of(slot)) + MEMORY_PIECE;

	return (all + MEMORY_PIECE - 1) / MEMORY_PIECE * MEMORY_PIECE;
}

/* All of a whole reply or nothing.  While it must wait for others, nobody takes what it saves up;
 * but not while it is its own client that has not taken its last ones. */
static bool read_whole(struct slot *slot)
{
	struct loop *loop = loop_of(slot);
	struct holder *holder = &slot->conn->holder;
	uint64_t total = memory_for_whole(slot);
	bool hole;

	if (!memory_allows_whole(&loop->memory, holder, total))
		return false;
	if (loop->memory.closed || !memory_has(&loop->memory, total)) {
		loop->memory.closed = true;
		return false;
	}
	slot->has_whole = true;
	holder->n_whole++;
	while (slot->at < end_of(slot) && !slot->error) {
		uint64_t end = stretch(slot, &hole);
		struct block block = memory_take_more(&loop->memory, holder,
		                                      buffer_for(slot, end));

		if (!add_piece(slot, end, block))
			slot_fail(slot, ENOMEM, NULL);
	}
	return true;
}

/* With an error (out of memory for a piece) what is under way ends first. */
static bool resume_chunks(struct slot *slot)
{
	bool all = read_more(slot);

	if (all && slot->error && slot->n_io == 0) {
		slot->starved = false;
		finish_failed(slot);
	}
	return all;
}

/* One whose replies were evicted gets no more memory until it has taken them; and no whole reply
 * overtakes what waits already, which may be a longer one. */
static bool must_queue(const struct slot *slot)
{
	return slot->conn->n_evicted || (slot->whole && slot->conn->starved);
}

static void begin_reading(struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;
	bool one_piece = buffer_for(slot, end_of(slot)) <= MEMORY_PIECE &&
	                 (slot->at >= dev->direct_size || end_of(slot) <= dev->direct_size);
	bool (*resume)(struct slot *slot) = resume_chunks;

	slot->whole = undivided(slot) && !one_piece;
	if (slot->whole)
		resume = read_whole;
	if (must_queue(slot) || !resume(slot))
		conn_starve(slot, resume);
}

static void on_flushed(struct slot *slot, int error)
{
	if (error)
		slot_answer(slot, NBD_EIO, "the flush that FUA asks for failed");
	else
		begin_reading(slot);
}

void start_read(struct slot *slot)
{
	slot->at = slot->req.offset;
	if (slot->req.flags & NBD_CMD_FLAG_FUA)
		flush_then(slot, on_flushed);
	else
		begin_reading(slot);
}

static void on_read_again(struct piece *piece, int error)
{
	struct conn *conn = piece->slot->conn;

	conn->reloading = false;
	conn_unsettle(conn);
	if (error) {
		/* Its header is out already: an error can no longer be told. */
		conn_kill(conn, REASON_DEVICE);
		return;
	}
	piece->evicted = false;
	conn->n_evicted--;
	piece->out.body = piece->block.at + piece->data_at;
}

bool read_again_now(struct piece *piece)
{
	struct conn *conn = piece->slot->conn;

	piece->block = memory_take(&conn->loop->memory, &conn->holder, piece->length,
	                           piece->length);
	if (!piece->block.at)
		return false;
	piece_read(piece, on_read_again);
	return true;
}

void read_again(struct piece *piece)
{
	if (!read_again_now(piece))
		conn_await_reload(piece->slot->conn, piece);
}
