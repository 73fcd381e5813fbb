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

static void on_moved(struct op *op, int res, uint32_t flags)
{
	(void) flags;
	moved(container_of(op, struct piece, op), res);
}

/* In a thread of the pool.  What is written to the tail is on media when this returns. */
static void move_tail(struct job *job)
{
	struct piece *piece = container_of(job, struct piece, job);
	int fd = export_of(piece->slot)->device.tail_fd;
	struct iovec iov = { piece->io_at + piece->moved, piece->io_length - piece->moved };
	off_t at = (off_t) (piece->io_start + piece->moved);
	ssize_t n = piece->io_writes ? pwritev2(fd, &iov, 1, at, RWF_DSYNC) : preadv(fd, &iov, 1, at);

	piece->result = n < 0 ? -errno : (int) n;
}

static void on_tail_moved(struct job *job)
{
	struct piece *piece = container_of(job, struct piece, job);

	moved(piece, piece->result);
}

static void go_on(struct piece *piece)
{
	struct export *export = export_of(piece->slot);
	uint8_t *at = piece->io_at + piece->moved;
	uint64_t start = piece->io_start + piece->moved;
	uint32_t length = piece->io_length - piece->moved;
	struct io_uring_sqe *sqe;

	if (piece->in_tail) {
		piece->job = (struct job) { .run = move_tail, .done = on_tail_moved };
		pool_submit(&export->pool, &piece->job, &export->ring.mail);
		return;
	}
	sqe = ring_sqe(&export->ring);
	if (piece->io_writes)
		io_uring_prep_write(sqe, export->device.fd, at, length, start);
	else
		io_uring_prep_read(sqe, export->device.fd, at, length, start);
	if (piece->io_durable)
		sqe->rw_flags = RWF_DSYNC;
	ring_start(&export->ring, sqe, &piece->op, on_moved);
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
