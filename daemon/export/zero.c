/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_WRITE_ZEROES and NBD_CMD_TRIM: by fallocate(2) where the device can, by hand where not.
 *
 *                     block device                          regular file
 *   may make holes    PUNCH_HOLE: the device's own zeroing   PUNCH_HOLE
 *                     or nothing; then ZERO_RANGE            then ZERO_RANGE, then writing
 *   NO_HOLE           ZERO_RANGE: the kernel writes if       ZERO_RANGE, then writing
 *                     the device cannot
 *   FAST_ZERO         only PUNCH_HOLE: it alone never        all but writing
 *                     falls back to writing
 *
 * A block device takes whole sectors; the odd bytes at both ends are written by hand, so
 * FAST_ZERO on them is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "export/actions.h"
#include "export/change.h"
#include "export/conn.h"
#include "export/mend.h"

/* Of one call: so that neither a stop nor other clients wait for terabytes.  A file system changes
 * its map alone, and may do so with exbibytes of nothing. */
#define STEP (256ull << 20)
#define FILE_STEP (1ull << 30)
#define FILE_STEPS_MAX 1024u

#define REFUSED "the export's dirty bitmaps cannot be kept"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_RANGE (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static uint64_t end_of(const struct slot *slot)
{
	return slot->req.offset + slot->req.length;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Of the step that begins at slot->at; whole sectors, but for the last one. */
static uint64_t step_end(const struct slot *slot, uint64_t end)
{
	const struct device *dev = &export_of(slot)->device;
	uint64_t part = slot->req.length / FILE_STEPS_MAX, step = part > FILE_STEP ? part : FILE_STEP;

	return least(end, sector_down(dev, slot->at + (dev->is_block ? STEP : step)));
}

/* The cheapest way that is allowed and not known to be missing; 0: write by hand;
 * -ENOTSUP: FAST_ZERO asked not to. */
static int way_to_zero(const struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;
	bool fast = slot->req.flags & NBD_CMD_FLAG_FAST_ZERO;

	if (!(slot->req.flags & NBD_CMD_FLAG_NO_HOLE) && !dev->no_punch)
		return PUNCH;
	if (!dev->no_zero_range && !(dev->is_block && fast))
		return ZERO_RANGE;
	return fast ? -ENOTSUP : 0;
}

static void next_step(struct slot *slot);

/* The step is over, if it began at all: others have their turn, then it goes on. */
static void end_step(struct slot *slot, void (*next)(struct slot *slot))
{
	change_give(loop_of(slot), &slot->range);
	bulk_end(slot);
	next(slot);
}

static void on_hand_written(struct piece *piece, int error)
{
	struct slot *slot = piece->slot;

	if (error)
		slot_fail(slot, error, "writing zeroes to the device failed");
	mend_drop(piece);
	next_step(slot);
}

/* False while there is no memory. */
static bool write_by_hand(struct slot *slot)
{
	struct piece *piece;
	bool again;

	piece = mend_piece(slot, slot->at, slot->by_hand_until, &again);
	if (again)
		return false;
	if (!piece) {
		slot_fail(slot, ENOMEM, NULL);
		next_step(slot);
		return true;
	}
	memset(piece->block.at + piece->data_at, 0, piece->data_len);
	slot->at += piece->data_len;
	mend_write(piece, false, on_hand_written);
	return true;
}

static void by_hand(struct slot *slot, uint64_t until)
{
	slot->by_hand_until = until;
	if (!write_by_hand(slot))
		conn_starve(slot, write_by_hand);
}

/* The device has no such call: remember it, and take the next way for the same stretch. */
static void note_missing(struct device *dev, int way)
{
	if (way == PUNCH)
		dev->no_punch = true;
	else
		dev->no_zero_range = true;
}

static void on_fallocated(struct op *op, int res, int buffer)
{
	struct slot *slot = container_of(op, struct slot, op);
	struct export *export = export_of(slot);

	(void) buffer;
	slot->n_io--;
	device_note_punch(&export->device);
	if (res == 0)
		slot->at = slot->range.end_asked;
	else if (res == -EOPNOTSUPP || res == -ENOSYS)
		note_missing(&export->device, slot->way);
	else if (res != -EINTR && res != -EAGAIN)
		slot_fail(slot, -res, "zeroing the device failed");
	end_step(slot, next_step);
}

static void fallocate_now(struct slot *slot)
{
	struct export *export = export_of(slot);

	if (range_refused(&slot->range)) {
		slot_fail(slot, range_refused(&slot->range), REFUSED);
		end_step(slot, next_step);
		return;
	}
	slot->n_io++;
	ring_allocate(&loop_of(slot)->ring, &slot->op, on_fallocated, export->device.fd, slot->way,
	              slot->at, slot->range.end_asked - slot->at);
}

static void on_fallocate_turn(struct range *range)
{
	struct slot *slot = container_of(range, struct slot, range);

	slot->n_io--;
	fallocate_now(slot);
}

/* Its turn first; alone where it does not cover whole sectors (a file takes any bytes). */
static void by_fallocate(struct slot *slot, uint64_t until)
{
	const struct device *dev = &export_of(slot)->device;

	slot->range = (struct range) {
		.start = sector_down(dev, slot->at), .end = sector_up(dev, until),
		.end_asked = until, .granted = on_fallocate_turn,
	};
	slot->range.alone = slot->range.start != slot->at || slot->range.end != until;
	if (change_take(loop_of(slot), &slot->range))
		fallocate_now(slot);
	else
		slot->n_io++;
}

/* To zero all of it again does no harm, but what follows it would have to wait for that: all are
 * dropped. */
static void leave_unanswered(struct slot *slot)
{
	conn_kill(slot->conn, REASON_SHUTDOWN);
	slot_fail(slot, EIO, NULL);
}

static void stop_if_wanted(struct slot *slot)
{
	if (slot->conn->dead)
		slot_fail(slot, EIO, NULL);
	else if (conn_leaves_unanswered(slot->conn))
		leave_unanswered(slot);
	else if (conn_shall_leave(slot->conn))
		slot_fail(slot, ESHUTDOWN, "no more requests are served; a part may have been zeroed");
}

/* Of what is left, the end of what fallocate(2) takes. */
static uint64_t whole_end(const struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;

	return dev->is_block ? sector_down(dev, end_of(slot)) : end_of(slot);
}

/* There is a place for it by now; meanwhile anything may have become known.  What lacks but one
 * step gets that, though the client has to leave. */
static void fallocate_step(struct slot *slot)
{
	uint64_t end = whole_end(slot), until = step_end(slot, end);

	slot->way = way_to_zero(slot);
	if (slot->conn->dead || until < end)
		stop_if_wanted(slot);
	if (!slot->error && slot->way > 0)
		by_fallocate(slot, until);
	else
		end_step(slot, next_step);
}

static void next_step(struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;
	uint64_t end = end_of(slot);
	bool odd = dev->is_block && (sector_down(dev, slot->at) != slot->at ||
	                             whole_end(slot) <= slot->at);
	int way = way_to_zero(slot);

	if (slot->at < end)
		stop_if_wanted(slot);
	if (slot->error || slot->at == end)
		flush_if_asked(slot);
	else if (way == -ENOTSUP || (odd && slot->req.flags & NBD_CMD_FLAG_FAST_ZERO))
		slot_answer(slot, NBD_ENOTSUP, "the device would have to write zeroes here");
	else if (odd)
		by_hand(slot, least(end, sector_up(dev, slot->at + 1)));
	else if (way == 0)
		by_hand(slot, whole_end(slot));
	else
		bulk_begin(slot, end - slot->at, fallocate_step);
}

/* FAST_ZERO fails at once or not at all: odd ends are found before anything is changed. */
static bool has_odd_ends(const struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;

	return dev->is_block && (sector_down(dev, slot->req.offset) != slot->req.offset ||
	                         sector_down(dev, end_of(slot)) != end_of(slot));
}

void start_write_zeroes(struct slot *slot)
{
	slot->at = slot->req.offset;
	if (slot->req.flags & NBD_CMD_FLAG_FAST_ZERO && has_odd_ends(slot))
		slot_answer(slot, NBD_ENOTSUP, "the device would have to write zeroes here");
	else
		next_step(slot);
}

/* TRIM: a hint, so what the device cannot discard is left, and the answer is success. */

static void next_trim(struct slot *slot);

/* Whole sectors only, inwards: what is trimmed may read as anything afterwards. */
static uint64_t trim_end(const struct slot *slot)
{
	return sector_down(&export_of(slot)->device, end_of(slot));
}

static void on_punched(struct op *op, int res, int buffer)
{
	struct slot *slot = container_of(op, struct slot, op);

	(void) buffer;
	slot->n_io--;
	device_note_punch(&export_of(slot)->device);
	if (res < 0 && res != -EOPNOTSUPP && res != -ENOSYS)
		slot_fail(slot, -res, "discarding failed");
	slot->at = res < 0 ? trim_end(slot) : slot->range.end;
	end_step(slot, next_trim);
}

/* In a thread of the pool. */
static void discard(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);
	uint64_t range[2] = { slot->range.start, slot->range.end - slot->range.start };

	slot->job_result = ioctl(export_of(slot)->device.fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static void on_discarded(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);

	on_punched(&slot->op, slot->job_result, 0);
}

static void trim_now(struct slot *slot)
{
	struct export *export = export_of(slot);

	if (range_refused(&slot->range)) {
		slot_fail(slot, range_refused(&slot->range), REFUSED);
		end_step(slot, next_trim);
		return;
	}
	slot->n_io++;
	if (export->device.is_block) {
		slot->job = (struct job) { .run = discard, .done = on_discarded };
		pool_submit(&export->discards, &slot->job, &loop_of(slot)->ring.mail);
		return;
	}
	ring_allocate(&loop_of(slot)->ring, &slot->op, on_punched, export->device.fd, PUNCH,
	              slot->range.start, slot->range.end - slot->range.start);
}

static void on_trim_turn(struct range *range)
{
	struct slot *slot = container_of(range, struct slot, range);

	slot->n_io--;
	trim_now(slot);
}

/* A hint that is followed in part is followed: a stop need not wait for terabytes. */
static bool trim_is_over(const struct slot *slot)
{
	return slot->error || slot->at >= trim_end(slot) || slot->conn->dead ||
	       conn_shall_leave(slot->conn);
}

static void trim_step(struct slot *slot)
{
	if (trim_is_over(slot)) {
		end_step(slot, next_trim);
		return;
	}
	slot->range = (struct range) {
		.start = slot->at, .end = step_end(slot, trim_end(slot)), .granted = on_trim_turn,
	};
	if (change_take(loop_of(slot), &slot->range))
		trim_now(slot);
	else
		slot->n_io++;
}

static void next_trim(struct slot *slot)
{
	if (trim_is_over(slot))
		flush_if_asked(slot);
	else
		bulk_begin(slot, trim_end(slot) - slot->at, trim_step);
}

void start_trim(struct slot *slot)
{
	const struct device *dev = &export_of(slot)->device;

	slot->at = dev->can_discard ? sector_up(dev, slot->req.offset) : trim_end(slot);
	next_trim(slot);
}
