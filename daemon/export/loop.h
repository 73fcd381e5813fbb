/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One thread's request loop: a ring, the connections that live on it, and all that they
 * use while they are served.
 *
 * Only the loop's thread touches it, but for what is marked; other threads send letters to
 * ring.mail.  What several loops share is in struct export.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "export/device.h"
#include "export/flush.h"
#include "export/memory.h"
#include "export/promptness.h"
#include "export/receive.h"
#include "export/ring.h"
#include "export/slot.h"

struct conn;
struct export;

struct loop {
	struct export *export;
	struct ring ring;
	struct memory memory;
	struct flusher flusher;
	struct slot_pool slots;
	struct receive_buffers buffers;
	struct known_data known_data;
	struct promptness promptness;

	struct conn *conns;             /* all of them */
	struct conn *unsettled;         /* with replies to send or a reason to look again */
	struct conn *starved, **starved_end;    /* waiting for memory, first come first */
	unsigned n_conns, n_busy;
	bool draining;                  /* no new request is served */
	struct timespec drain_began;
	struct letter drained;
	struct op tick_op;              /* once a second, while there is something to watch */

	/* The main thread's */
	pthread_t thread;
	bool runs;
	unsigned n_admitted;            /* clients that have, or are promised, a place here */
};

/* Everything but the thread.  `memory`: bytes; `n_clients`: at most so many at once. */
int loop_init(struct loop *loop, struct export *export, const struct engine *engine,
              uint64_t memory, unsigned n_clients, struct failure *why);
void loop_deinit(struct loop *loop);

/* The main thread: starts the loop's own. */
int loop_start(struct loop *loop, struct failure *why);

/* The main thread: serve no new request, end all connections when what is in flight has been
 * answered; then the loop's thread ends, and export->on_loop_drained() is called. */
void loop_drain(struct loop *loop);

/* Makes the look around happen while it is needed; see watch.c. */
void loop_watch(struct loop *loop);
