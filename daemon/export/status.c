/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_BLOCK_STATUS: base:allocation, qemu:allocation-depth and qemu:dirty-bitmap:*.
 *
 * A block device cannot tell where it holds nothing: it is one extent of data.  A file's holes
 * are looked up by the pool, since a fragmented one takes thousands of calls, and so are
 * bitmaps, which may be millions of words.  Contexts are answered one after another, a chunk
 * each, so that a reply never needs memory for two.
 */
#include <errno.h>

#include "dirty/tracker.h"
#include "export/actions.h"
#include "export/conn.h"
#include "export/extents.h"

#define ALLOCATION_DEPTH_LOCAL 1u       /* this layer, and there is no other */

static bool go_on(struct slot *slot);

/* slot->status_wanted has the contexts that are still to be answered. */

static uint32_t current_context(const struct slot *slot)
{
	return slot->conn->contexts[__builtin_ctzll(slot->status_wanted)];
}

static uint64_t without_current(const struct slot *slot)
{
	return slot->status_wanted & (slot->status_wanted - 1);
}

static bool is_last(const struct slot *slot)
{
	return without_current(slot) == 0;
}

static void on_looked_up(struct job *job)
{
	struct slot *slot = container_of(job, struct slot, job);
	bool last = is_last(slot);

	slot->n_io--;
	if (slot->conn->dead) {
		extents_drop(slot);
		slot_answer(slot, NBD_EIO, NULL);
		return;
	}
	extents_queue(slot, current_context(slot), last);
	if (last)
		return;
	slot->status_wanted = without_current(slot);
	if (!go_on(slot))
		conn_starve(slot, go_on);
}

/* Takes the view over. */
static int look_up(struct slot *slot, struct view *view, uint64_t most)
{
	int r = extents_take_room(slot, most);

	if (r < 0) {
		view_unref(view);
		return r;
	}
	slot->n_io++;
	extents_look_up(slot, view, on_looked_up);
	return -EINPROGRESS;
}

static int say_allocation(struct slot *slot, uint32_t id)
{
	if (export_of(slot)->device.is_block)
		return extents_queue_one(slot, id, 0, is_last(slot));
	return look_up(slot, NULL, slot->req.length / 512 + 1);
}

static int say_depth(struct slot *slot, uint32_t id)
{
	return extents_queue_one(slot, id, ALLOCATION_DEPTH_LOCAL, is_last(slot));
}

/* Of a bitmap that is gone nothing can be said, least of all that it is clean. */
static int say_dirty(struct slot *slot, uint32_t id)
{
	const struct request *req = &slot->req;
	struct tracker *tracker = export_of(slot)->tracker;
	struct view *view = tracker ? tracker_view(tracker, id) : NULL;
	unsigned shift;

	if (!view)
		return -EIO;
	if (view->everything) {
		view_unref(view);
		return extents_queue_one(slot, id, NBD_STATE_DIRTY, is_last(slot));
	}
	shift = view->granule_shift;
	return look_up(slot, view, ((req->offset + req->length - 1) >> shift) -
	                           (req->offset >> shift) + 1);
}

/* 0: it is queued; -EINPROGRESS: it will be; -EAGAIN: when there is memory; or what went wrong. */
static int say_current(struct slot *slot)
{
	uint32_t id = current_context(slot);

	switch (id) {
	case NBD_CONTEXT_ID_BASE_ALLOCATION:
		return say_allocation(slot, id);
	case NBD_CONTEXT_ID_ALLOCATION_DEPTH:
		return say_depth(slot, id);
	default:
		return say_dirty(slot, id);
	}
}

/* Context after context, until one must be looked up first.  False: until there is memory. */
static bool go_on(struct slot *slot)
{
	for (;;) {
		bool last = is_last(slot);
		int r = say_current(slot);

		if (r == -EAGAIN)
			return false;
		if (r == -EIO)
			slot_answer(slot, NBD_EIO, "the dirty bitmap has been removed, or there is "
			            "no memory to look at it");
		else if (r < 0 && r != -EINPROGRESS)
			slot_answer(slot, NBD_ENOMEM, NULL);
		if (r < 0 || last)
			return true;
		slot->status_wanted = without_current(slot);
	}
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
	if (!go_on(slot))
		conn_starve(slot, go_on);
}
