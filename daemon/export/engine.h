/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a ring runs on.  For ring.c and the engines only.
 */
#pragma once

#include "export/ring.h"

struct engine {
	const char *name;               /* as in Engine= */

	/* Any thread.  On failure close() is called all the same. */
	int (*open)(struct ring *ring, unsigned n_buffers, struct failure *why);
	void (*close)(struct ring *ring);

	/* The ring's thread, once, before all that follows. */
	void (*enter)(struct ring *ring);

	/* The operation is described in full.  It ends with ring_end(), never in here. */
	void (*start)(struct ring *ring, struct op *op);
	void (*cancel)(struct ring *ring, struct op *op);
	void (*forget)(struct ring *ring, int fd);
	void (*give_buffer)(struct ring *ring, void *at, unsigned size, uint16_t id);

	/* Whether one more start() leaves the messages alone that ring_message() gave out; if
	 * not, flush() lets the kernel read them. */
	bool (*has_room)(const struct ring *ring);
	void (*flush)(struct ring *ring);

	/* Hands over what was started; tells what is over, and if `sleep` waits for some. */
	void (*wait)(struct ring *ring, bool sleep);
};

extern const struct engine uring_engine, threads_engine;

/* The operation is over: tells its owner. */
void ring_end(struct ring *ring, struct op *op, int res, int buffer);

/* The same where the kernel has not begun it: a device's operation is done right here, since nobody
 * cancels those; a socket's ends with -ECANCELED. */
void ring_end_unbegun(struct ring *ring, struct op *op, int buffer);

/* The same as ring_end(), but later: once the engine has returned. */
void ring_end_later(struct ring *ring, struct op *op, int res);

/* Does a device's operation with blocking system calls; the result as from io_uring. */
int op_perform(const struct op *op);
