/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/flush.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "export/actions.h"
#include "export/conn.h"

void flusher_init(struct flusher *flusher, struct loop *loop)
{
	*flusher = (struct flusher) { .loop = loop };
	flusher->waiting_end = &flusher->waiting;
}

void flush_line_init(struct flush_line *line)
{
	*line = (struct flush_line) { .lock = PTHREAD_MUTEX_INITIALIZER };
	line->end = &line->first;
}

/* False: it stands in line, and gets a letter. */
static bool take_turn(struct flush_line *line, struct flusher *flusher)
{
	bool taken;

	pthread_mutex_lock(&line->lock);
	taken = line->taken;
	line->taken = true;
	flusher->in_line = taken;
	if (taken) {
		flusher->next = NULL;
		*line->end = flusher;
		line->end = &flusher->next;
	}
	pthread_mutex_unlock(&line->lock);
	return !taken;
}

static void flush_now(struct flusher *flusher);

static void on_turn(struct letter *letter)
{
	flush_now(container_of(letter, struct flusher, letter));
}

static void give_turn(struct flush_line *line)
{
	struct flusher *next;

	pthread_mutex_lock(&line->lock);
	next = line->first;
	line->taken = next != NULL;
	if (next)
		line->first = next->next;
	if (!line->first)
		line->end = &line->first;
	pthread_mutex_unlock(&line->lock);
	if (!next)
		return;
	if (!next->loop) {
		sem_post(&next->turn);
		return;
	}
	next->letter.open = on_turn;
	mailbox_post(&next->loop->ring.mail, &next->letter);
}

static void want_turn(struct flusher *flusher)
{
	if (take_turn(&flusher->loop->export->flush_line, flusher))
		flush_now(flusher);
}

static void tell(struct slot *slot, int error)
{
	struct slot *next;

	for (; slot; slot = next) {
		next = slot->flush_next;
		slot->n_io--;
		slot->flushed(slot, error);
	}
}

/* On file systems that cannot be written (squashfs, ISO 9660) there is no such call, nor anything
 * to lose. */
static int result_of(const struct export *export, int res)
{
	return res == -EINVAL && export->device.never_writes ? 0 : res;
}

static void on_flushed(struct op *op, int res, int buffer)
{
	struct flusher *flusher = container_of(op, struct flusher, op);
	struct export *export = flusher->loop->export;
	struct slot *slot = flusher->running;

	(void) buffer;
	res = result_of(export, res);
	if (res < 0 && res != -EINTR && res != -EAGAIN)
		flush_failed(export, -res, "flushing the device failed");
	/* Interrupted: told as an error, but the next may succeed.  Latched meanwhile, by a FUA
	 * that failed: what the kernel told that one it does not tell again. */
	if (res == -EINTR || res == -EAGAIN || (res == 0 && export->latch.set))
		res = -EIO;

	flusher->running = NULL;
	give_turn(&export->flush_line);
	if (flusher->waiting)
		want_turn(flusher);
	tell(slot, -res);
}

static struct slot *take_waiting(struct flusher *flusher)
{
	struct slot *slot = flusher->waiting;

	flusher->waiting = NULL;
	flusher->waiting_end = &flusher->waiting;
	return slot;
}

/* All who wait now are covered by the flush that begins now. */
static void flush_now(struct flusher *flusher)
{
	struct export *export = flusher->loop->export;

	flusher->in_line = false;
	if (export->latch.set) {
		give_turn(&export->flush_line);
		tell(take_waiting(flusher), EIO);
		return;
	}
	flusher->running = take_waiting(flusher);
	ring_sync(&flusher->loop->ring, &flusher->op, on_flushed, export->device.fd);
}

void flush_then(struct slot *slot, void (*flushed)(struct slot *slot, int error))
{
	struct flusher *flusher = &loop_of(slot)->flusher;

	if (export_of(slot)->latch.set) {
		flushed(slot, EIO);
		return;
	}
	slot->flushed = flushed;
	slot->flush_next = NULL;
	slot->n_io++;
	*flusher->waiting_end = slot;
	flusher->waiting_end = &slot->flush_next;
	if (!flusher->running && !flusher->in_line)
		want_turn(flusher);
}

void flush_failed(struct export *export, int error, const char *what)
{
	char reason[160];

	(void) snprintf(reason, sizeof reason, "%s: %s: %s", export->device.path, what,
	                strerror(error));
	latch_set(&export->latch, reason);
}

/* In its turn.  It is latched before another can be told that all is well. */
static int flush_here(struct export *export, bool last)
{
	const struct device *dev = &export->device;
	int r = result_of(export, fdatasync(dev->fd) < 0 ? -errno : 0);

	if (r == 0 || r == -EINTR || r == -EAGAIN ||
	    (last && dev->is_block && device_vanished(dev, -r)))
		return r;
	flush_failed(export, -r, "flushing the device failed");
	return r;
}

static int flush_in_turn(struct export *export, bool last)
{
	struct flusher flusher = { 0 };
	int r;

	sem_init(&flusher.turn, 0, 0);
	if (!take_turn(&export->flush_line, &flusher))
		while (sem_wait(&flusher.turn) < 0)
			;
	r = flush_here(export, last);
	give_turn(&export->flush_line);
	sem_destroy(&flusher.turn);
	return r == 0 && export->latch.set ? -EIO : r;
}

int flush_wait(struct export *export)
{
	return export->latch.set ? -EIO : flush_in_turn(export, false);
}

int flush_last(struct export *export)
{
	return flush_in_turn(export, true);
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
