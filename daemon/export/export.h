/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One export at work: its device, its request loops and everybody who is connected.
 *
 * The main thread (sd-event: the channel, signals; admit.c, main.c) and one thread for each
 * loop (Threads=), which alone touches what is the loop's.  They talk in letters.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/export-settings.h"
#include "export/device.h"
#include "export/flush.h"
#include "export/latch.h"
#include "export/mailbox.h"
#include "export/order.h"
#include "export/pool.h"
#include "wire/reason.h"

struct conn;
struct engine;
struct loop;
struct tracker;

struct export {
	const struct export_settings *settings; /* the loops look at nothing but its label */
	struct mailbox mail;            /* letters for the main thread */
	void (*on_gone)(struct export *export, struct conn *conn);      /* main thread */
	void (*on_drained)(struct export *export);                      /* main thread */
	void (*on_device_failed)(struct export *export, int error);     /* main thread; an errno */
	void (*on_bitmaps_changed)(struct export *export);              /* main thread */

	/* Shared by the loops; each of these looks after itself. */
	struct device device;
	struct order order;
	struct flush_line flush_line;
	struct latch latch;
	struct pool pool;
	struct pool discards;           /* which may hold all its threads for long */
	struct tracker *tracker;        /* of its bitmaps; NULL in tests alone */
	_Atomic uint64_t least_offer;   /* a client that was offered less shall connect again */
	uint64_t tracked_size;          /* the device's when that was opened: bitmaps go no further */

	/* See contexts_changed() */
	struct letter bitmaps_letter;   /* to the main thread */
	_Atomic bool bitmaps_told;      /* it is on its way */

	/* The main thread's */
	struct loop *loops;
	unsigned n_loops, n_draining;   /* n_draining: that have not said they are drained */
	unsigned round;                 /* counts drains and resumptions */
	bool quiet;                     /* all loops are drained, in this round */
	bool flushes;                   /* last_flush is under way */
	unsigned flush_round;           /* the round that it was begun for */
	int flush_error;                /* an errno; its result */
	bool device_gone;               /* nothing can be flushed any more */
	struct job last_flush;
	int last_flush_error;           /* an errno; of the last drain, or before */
};

/* Everything but the threads.  `device` is open; it is the export's from here on. */
int export_init(struct export *export, const struct export_settings *settings,
                const struct device *device, struct failure *why);

/* After on_drained(). */
void export_deinit(struct export *export);

/* Starts the loops. */
int export_start(struct export *export, struct failure *why);

/* The loop with the fewest clients. */
struct loop *export_choose_loop(struct export *export);

/* Serve no new request, end all connections when what is in flight has been answered, flush the
 * device; then on_drained(), unless it is resumed before.  Not while that goes on. */
void export_drain(struct export *export, enum reason reason);

/* Serve again: after on_drained(), or instead of it, with the clients that are still there. */
void export_resume(struct export *export);

/* For loop.c, in the main thread: a loop's thread has nothing left to do. */
void export_loop_drained(struct export *export, unsigned round);
