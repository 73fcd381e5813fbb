/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is durable when we answer, in one place: FLUSH and FUA.
 *
 * One flush of the device serves all who asked before it began; those who ask while it
 * runs share the next, since the device may have passed their writes already.
 *
 * A flush or FUA that fails is final: the kernel may have dropped the data, so that
 * a later flush would succeed without it.  From then on all fail, over restarts too,
 * until the device is another or an administrator says so (latch.h).
 */
#pragma once

#include "export/ring.h"

struct export;
struct slot;

struct flusher {
	struct op op;
	struct slot *running;           /* who waits for the flush under way */
	struct slot *waiting, **waiting_end;    /* who waits for the next */
};

void flusher_init(struct flusher *flusher);

/* Flushes the device, then calls `flushed` with 0 or a positive errno. */
void flush_then(struct slot *slot, void (*flushed)(struct slot *slot, int error));

/* Answers a change that is done, or failed (slot->error); with FUA it is flushed first. */
void flush_if_asked(struct slot *slot);

/* Latches a failed FUA write, and words it. */
void flush_failed(struct export *export, int error, const char *what);
