/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/flush.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "export/actions.h"
#include "export/conn.h"

void flusher_init(struct flusher *flusher)
{
	*flusher = (struct flusher) { 0 };
	flusher->waiting_end = &flusher->waiting;
}

static void begin(struct loop *loop);

static void on_flushed(struct op *op, int res, int buffer)
{
	struct flusher *flusher = container_of(op, struct flusher, op);
	struct loop *loop = container_of(flusher, struct loop, flusher);
	struct slot *slot = flusher->running, *next;

	(void) buffer;
	if (res < 0 && res != -EINTR && res != -EAGAIN)
		flush_failed(loop->export, -res, "flushing the device failed");
	if (res == -EINTR || res == -EAGAIN)
		res = -EIO;                     /* told as an error, but the next may succeed */

	flusher->running = NULL;
	if (flusher->waiting)
		begin(loop);
	for (; slot; slot = next) {
		next = slot->flush_next;
		slot->n_io--;
		slot->flushed(slot, res < 0 ? -res : 0);
	}
}

/* All who wait now are covered by the flush that begins now. */
static void begin(struct loop *loop)
{
	struct flusher *flusher = &loop->flusher;

	flusher->running = flusher->waiting;
	flusher->waiting = NULL;
	flusher->waiting_end = &flusher->waiting;
	ring_sync(&loop->ring, &flusher->op, on_flushed, loop->export->device.fd);
}

void flush_then(struct slot *slot, void (*flushed)(struct slot *slot, int error))
{
	struct loop *loop = loop_of(slot);
	struct flusher *flusher = &loop->flusher;

	if (loop->export->latch.set) {
		flushed(slot, EIO);
		return;
	}
	slot->flushed = flushed;
	slot->flush_next = NULL;
	slot->n_io++;
	*flusher->waiting_end = slot;
	flusher->waiting_end = &slot->flush_next;
	if (!flusher->running)
		begin(loop);
}

void flush_failed(struct export *export, int error, const char *what)
{
	char reason[160];

	(void) snprintf(reason, sizeof reason, "%s: %s: %s", export->device.path, what,
	                strerror(error));
	latch_set(&export->latch, reason);
}

static void on_change_flushed(struct slot *slot, int error)
{
	slot_answer(slot, error ? nbd_error_of(error) : NBD_SUCCESS,
	            error ? "the flush that FUA asks for failed" : NULL);
}

void flush_if_asked(struct slot *slot)
{
	if (!slot->error && slot->req.flags & NBD_CMD_FLAG_FUA)
		flush_then(slot, on_change_flushed);
	else
		slot_answer(slot, slot->error, slot->sentence);
}

static void on_command_flushed(struct slot *slot, int error)
{
	slot_answer(slot, error ? nbd_error_of(error) : NBD_SUCCESS,
	            error ? "a flush failed: data acknowledged before may not be on media" : NULL);
}

void start_flush(struct slot *slot)
{
	flush_then(slot, on_command_flushed);
}
