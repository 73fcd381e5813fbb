/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_WRITE: payload to device.
 *
 * A large WRITE moves in pieces of at most 256 KiB, each written while the next arrives, so that
 * a client that stalls holds one of them.  After a failure the rest of the payload is only
 * taken off the socket.
 */
#include "export/write.h"

#include <errno.h>

#include "export/conn.h"
#include "export/mend.h"
#include "export/receive.h"

/*
 * FUA of one piece to a block device goes with the write itself; several pieces share a flush at the
 * end, and so does all that goes to where the page cache is.  What the kernel failed to write back
 * from there, wherever it lay, it tells once to whoever syncs by this descriptor, so that only
 * flushes in line may ask.  A file has pages there in direct I/O, too: the edges of what was zeroed.
 * Of a block device's data nothing is: there zeroing goes to the device.
 */
static bool durable_at_once(const struct slot *slot, const struct piece *piece)
{
	const struct device *dev = &export_of(slot)->device;

	return slot->req.flags & NBD_CMD_FLAG_FUA && piece->data_len == slot->req.length &&
	       dev->direct && dev->is_block;
}

static void finish(struct slot *slot, bool durable)
{
	if (slot->receiving || slot->n_io)
		return;
	if (!slot->error)
		slot->conn->stats.bytes_written += slot->req.length;
	if (durable)
		slot_answer(slot, slot->error, slot->sentence);
	else
		flush_if_asked(slot);
}

/* Errors after which data may be gone; the others say that nothing was written. */
static bool is_loss(int error)
{
	return error != ENOSPC && error != EDQUOT && error != EFBIG && error != EINVAL;
}

static void on_written(struct piece *piece, int error)
{
	struct slot *slot = piece->slot;
	bool durable = durable_at_once(slot, piece);

	if (error)
		slot_fail(slot, error, "writing to the device failed");
	if (error && durable && piece->io_writes && is_loss(error))
		flush_failed(export_of(slot), error, "a write with FUA failed");
	else if (durable && export_of(slot)->latch.set)
		slot_fail(slot, EIO, "a flush failed before: nothing can be made durable");
	mend_drop(piece);
	finish(slot, durable);
}

/* Makes the next piece the one to fill.  False while there is no memory for it. */
static bool next_piece(struct slot *slot)
{
	struct conn *conn = slot->conn;
	bool again = false;

	if (!slot->error) {
		conn->filling = mend_piece(slot, slot->at, slot->req.offset + slot->req.length, &again);
		if (again)
			return false;
		if (!conn->filling)
			slot_fail(slot, ENOMEM, NULL);
	}
	if (slot->error)
		receive_discard(slot);
	else
		slot->at += conn->filling->data_len;
	return true;
}

static void want_piece(struct slot *slot)
{
	if (!next_piece(slot))
		conn_starve(slot, next_piece);
}

void start_write_payload(struct slot *slot)
{
	slot->conn->receiving = RECEIVING_WRITE;
	slot->at = slot->req.offset;
	if (slot->req.flags & NBD_CMD_FLAG_FUA && export_of(slot)->latch.set)
		slot_fail(slot, EIO, "a flush failed before: nothing can be made durable");
	want_piece(slot);
}

static void submit(struct piece *piece)
{
	mend_write(piece, durable_at_once(piece->slot, piece), on_written);
}

void write_filled(struct piece *piece, uint32_t n)
{
	struct slot *slot = piece->slot;
	struct conn *conn = slot->conn;

	piece->moved += n;
	conn->payload_left -= n;
	if (piece->moved < piece->data_len)
		return;

	conn->filling = NULL;
	if (conn->payload_left) {
		submit(piece);
		want_piece(slot);
		return;
	}
	conn->receiving = RECEIVING_HEADER;
	conn->writing = NULL;
	slot->receiving = false;
	submit(piece);
}

void write_abandon(struct piece *piece)
{
	struct slot *slot = piece->slot;

	slot->conn->filling = NULL;
	slot_fail(slot, EIO, NULL);
	mend_drop(piece);
	finish(slot, false);
}
