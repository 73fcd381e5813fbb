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

#include "export/bulk.h"
#include "export/device.h"
#include "export/flush.h"
#include "export/memory.h"
#include "export/promptness.h"
#include "export/receive.h"
#include "export/ring.h"
#include "export/slot.h"
#include "wire/reason.h"

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
	struct bulk bulk;

	struct conn *conns;             /* all of them */
	struct conn *unsettled;         /* with replies to send or a reason to look again */
	struct conn *starved, **starved_end;    /* waiting for memory, first come first */
	unsigned n_conns, n_busy;
	_Atomic bool draining;          /* no new request is served */
	bool told;                      /* that the last connection has gone since */
	enum reason drain_reason;       /* why it drains */
	struct timespec drain_began;
	unsigned round;                 /* of the turn that was taken last */
	struct letter turn;             /* to the loop: see what is wanted */
	_Atomic uint64_t wanted;        /* by the main thread: a round, and a reason to drain, or none */
	struct letter sizes;            /* to the loop: the device has changed its size */
	struct letter end;              /* to the loop */
	struct letter drained;          /* to the main thread */
	_Atomic unsigned drained_round; /* which it tells of */
	struct letter alarm;            /* to the main thread: the device failed */
	_Atomic int alarm_error;        /* an errno; 0 while the letter is not on its way */
	struct op tick_op;              /* once a second, while there is something to watch */

	/* The main thread's */
	pthread_t thread;
	bool runs;
	unsigned n_admitted;            /* clients that have, or are promised, a place here */
	unsigned n_clients;             /* that there is room for */
};

/* Everything but the thread.  `memory`: bytes; `n_clients`: at most so many at once. */
int loop_init(struct loop *loop, struct export *export, const struct engine *engine,
              uint64_t memory, unsigned n_clients, struct failure *why);
void loop_deinit(struct loop *loop);

/* The main thread: starts the loop's own. */
int loop_start(struct loop *loop, struct failure *why);

/* The main thread: serve no new request, end all connections when what is in flight has been
 * answered; then export_loop_drained() is called, once, with this `round`, if nothing else has been
 * wanted since.  Rounds differ from one call of these two to the next. */
void loop_drain(struct loop *loop, unsigned round, enum reason reason);

/* The main thread, at any time: serve again.  Connections that were not closed yet go on. */
void loop_resume(struct loop *loop, unsigned round);

/* The main thread: has those clients leave whose size is not what it should be: see look.h. */
void loop_check_sizes(struct loop *loop);

/* The loop's thread: makes room for `n` more clients.  -ENOMEM */
int loop_grow(struct loop *loop, unsigned n);

/* The main thread: ends the loop's own, and waits for it. */
void loop_stop(struct loop *loop);

/* Makes the look around happen while it is needed; see watch.c. */
void loop_watch(struct loop *loop);
