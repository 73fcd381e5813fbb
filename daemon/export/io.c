/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/io.h"

#include <errno.h>
#include <sys/uio.h>

#include "export/conn.h"

static void go_on(struct piece *piece);

static void finish(struct piece *piece, int error)
{
	piece->slot->n_io -= !piece->evicted;
	piece->io_done(piece, error);
}

/*
 * Zero bytes mean that the device ended before the size we announced: it shrank under us.
 * A torn sector cannot be continued with O_DIRECT.  Both are I/O errors: invented zeroes
 * are the one reply that a client can never detect.
 */
static void moved(struct piece *piece, int res)
{
	const struct device *dev = &export_of(piece->slot)->device;

	if (res == -EINTR || res == -EAGAIN) {
		go_on(piece);
		return;
	}
	if (res < 0) {
		finish(piece, -res);
		return;
	}
	if (res == 0 || (!piece->in_tail && (uint32_t) res & (dev->sector - 1))) {
		finish(piece, EIO);
		return;
	}
	piece->moved += (uint32_t) res;
	if (piece->moved < piece->io_length)
		go_on(piece);
	else
		finish(piece, 0);
}

static void on_moved(struct op *op, int res, int buffer)
{
	(void) buffer;
	moved(container_of(op, struct piece, op), res);
}

/* What lies in the tail is on media when this returns; FUA goes with the write. */
static int write_flags(const struct piece *piece)
{
	return piece->io_durable || piece->in_tail ? RWF_DSYNC : 0;
}

/* A device that answers at once is asked right here; see promptness.h. */
static bool go_on_here(struct piece *piece, const struct op *what)
{
	struct loop *loop = loop_of(piece->slot);
	uint64_t began;

	if (what->flags)
		return false;
	began = promptness_begin(&loop->promptness, loop->ring.round);
	if (!began)
		return false;
	ring_perform(&loop->ring, &piece->op, on_moved, what);
	promptness_took(&loop->promptness, began, (uint32_t) what->length);
	return true;
}

static void go_on(struct piece *piece)
{
	const struct device *dev = &export_of(piece->slot)->device;
	struct ring *ring = &loop_of(piece->slot)->ring;
	struct op what = {
		.kind = piece->io_writes ? OP_WRITE : OP_READ,
		.fd = piece->in_tail ? dev->tail_fd : dev->fd,
		.at = piece->io_at + piece->moved,
		.offset = piece->io_start + piece->moved,
		.length = piece->io_length - piece->moved,
		.flags = piece->io_writes ? write_flags(piece) : 0,
	};

	if (!go_on_here(piece, &what))
		ring_start(ring, &piece->op, on_moved, &what);
}

static void begin(struct piece *piece, uint8_t *at, uint64_t start, uint32_t length, piece_done done)
{
	piece->io_at = at;
	piece->io_start = start;
	piece->io_length = length;
	piece->io_done = done;
	piece->moved = 0;
	piece->slot->n_io += !piece->evicted;   /* one that is read again was counted before */
	go_on(piece);
}

void piece_read_part(struct piece *piece, uint8_t *at, uint64_t start, uint32_t length,
                     piece_done done)
{
	piece->io_writes = piece->io_durable = false;
	begin(piece, at, start, length, done);
}

void piece_read(struct piece *piece, piece_done done)
{
	piece_read_part(piece, piece->block.at, piece->start, piece->length, done);
}

void piece_write(struct piece *piece, bool durable, piece_done done)
{
	piece->io_writes = true;
	piece->io_durable = durable;
	begin(piece, piece->block.at, piece->start, piece->length, done);
}
