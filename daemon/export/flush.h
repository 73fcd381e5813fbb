/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is durable when we answer, in one place: FLUSH and FUA.
 *
 * One flush of the device serves all who asked before it began; those who ask while it
 * runs share the next, since the device may have passed their writes already.
 *
 * Of all loops of an export one flushes at a time: the kernel tells a failed write-back to
 * whoever asks first, and a second flush beside it would be told that all is well.
 *
 * A flush or FUA that fails is final: the kernel may have dropped the data, so that
 * a later flush would succeed without it.  From then on all fail, over restarts too,
 * until the device is another or an administrator says so (latch.h).
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "export/ring.h"

struct export;
struct loop;
struct slot;

/* A loop's, or for once another thread's. */
struct flusher {
	struct op op;
	struct loop *loop;              /* NULL: a thread that waits for `turn` */
	sem_t turn;
	struct slot *running;           /* who waits for the flush under way */
	struct slot *waiting, **waiting_end;    /* who waits for the next */
	bool in_line;                   /* for the export's turn */
	struct flusher *next;           /* in that line */
	struct letter letter;           /* the turn has come */
};

/* An export's: whose turn it is. */
struct flush_line {
	pthread_mutex_t lock;
	bool taken;
	struct flusher *first, **end;
};

void flusher_init(struct flusher *flusher, struct loop *loop);
void flush_line_init(struct flush_line *line);

/* Flushes the device, then calls `flushed` with 0 or a positive errno. */
void flush_then(struct slot *slot, void (*flushed)(struct slot *slot, int error));

/* Flushes the device in this thread, which is no loop's.  0 or a negative errno. */
int flush_wait(struct export *export);

/* The same at the end of a drain: also where an earlier one failed, which is told then; of a device
 * that has vanished nothing is latched. */
int flush_last(struct export *export);

/* Answers a change that is done, or failed (slot->error); with FUA it is flushed first. */
void flush_if_asked(struct slot *slot);

/* Latches a failed FUA write, and words it. */
void flush_failed(struct export *export, int error, const char *what);
