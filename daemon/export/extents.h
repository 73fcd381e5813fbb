/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The extents of one context over one request: found by the pool, written as they go over the
 * wire into blocks of the memory budget, sent as one chunk.
 *
 * With little memory fewer extents are described than there are, which the protocol allows:
 * the client asks again from where they ended.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct job;
struct slot;
struct view;

/*
 * Blocks for up to `most` extents, or as many as there are, but one, in slot->pieces.
 * 0; -EAGAIN: the budget has none now; -ENOMEM.
 */
int extents_take_room(struct slot *slot, uint64_t most);

/*
 * Has the pool fill them: from `view` if there is one, whose reference it takes over, else with
 * what the device has allocated.  done() is called in the loop's thread, then the blocks
 * are queued or dropped.
 */
void extents_look_up(struct slot *slot, struct view *view, void (*done)(struct job *job));

/* What was found, as the chunk of the context `id`; with `last`, the slot is answered. */
void extents_queue(struct slot *slot, uint32_t id, bool last);
void extents_drop(struct slot *slot);

/* Without all that: one extent over the whole request.  -ENOMEM, and nothing was queued. */
int extents_queue_one(struct slot *slot, uint32_t id, uint64_t flags, bool last);
