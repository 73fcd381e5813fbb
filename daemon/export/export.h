/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One export at work: its device, its ring and everybody who is connected.
 *
 * Two threads: the main thread (sd-event: the channel, signals; admit.c, main.c) and the
 * ring's thread, which alone touches what stands below "the ring's".  They talk in letters.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/export-settings.h"
#include "export/device.h"
#include "export/flush.h"
#include "export/latch.h"
#include "export/memory.h"
#include "export/order.h"
#include "export/pool.h"
#include "export/receive.h"
#include "export/ring.h"
#include "export/slot.h"

struct conn;

struct export {
	const struct export_settings *settings;
	struct mailbox mail;            /* letters for the main thread */
	void (*on_gone)(struct export *export, struct conn *conn);      /* main thread */
	void (*on_drained)(struct export *export);                      /* main thread */

	/* The ring's */
	struct ring ring;
	struct device device;
	struct memory memory;
	struct order order;
	struct flusher flusher;
	struct latch latch;
	struct pool pool;
	struct slot_pool slots;
	struct receive_buffers buffers;

	struct conn *conns;             /* all of them */
	struct conn *unsettled;         /* with replies to send or a reason to look again */
	struct conn *starved, **starved_end;    /* waiting for memory, first come first */
	unsigned n_conns, n_busy;
	bool draining;                  /* no new request is served */
	struct timespec drain_began;
	bool last_flush_failed;
	struct letter drained;
	struct op tick_op;              /* once a second, while there is something to watch */
	struct __kernel_timespec tick_time;
};

/* Everything but the threads.  `device` is open; it is the export's from here on. */
int export_init(struct export *export, const struct export_settings *settings,
                const struct device *device, const char *state_dir, struct failure *why);
void export_deinit(struct export *export);

/* The ring's thread. */
void export_run(struct export *export);

/* From the main thread: serve no new request, end all connections when what is in flight has
 * been answered, flush the device; then on_drained(). */
void export_drain(struct export *export);

/* Makes the once-a-second look happen while it is needed; see watch.c. */
void export_watch(struct export *export);
void export_tick(struct op *op, int res, uint32_t flags);
