/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts operations on sockets and on the device, and calls back when they end.
 *
 * One ring belongs to one thread.  What it runs on is an engine (engine.h): io_uring, or a
 * pool of threads with epoll(7) where there is no io_uring.  Nobody else can tell which.
 *
 * An operation lies inside the object that it is for, which must outlive it.  op->in_flight
 * is asserted both ways, so a completion that nobody waits for stops the process rather than
 * touch memory that has another owner by now.
 */
#pragma once

#include <linux/time_types.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/failure.h"
#include "export/age.h"
#include "export/mailbox.h"
#include "export/pool.h"

#define RING_NO_BUFFER (-1)

/* Rows of the engines' tables. */
enum op_kind {
	OP_READ, OP_WRITE, OP_SYNC, OP_ALLOCATE, OP_ADVISE,     /* the device's: they may block */
	OP_RECEIVE, OP_RECEIVE_ANY, OP_SEND, OP_WRITABLE,       /* a socket's */
	OP_TIMER,
};

#define N_OP_KINDS (OP_TIMER + 1u)

struct op;

/* `res`: bytes, or a negative errno; `buffer`: the one that OP_RECEIVE_ANY filled. */
typedef void (*op_done)(struct op *op, int res, int buffer);

struct op {
	op_done done;
	struct op *next;                /* in a list of the ring or its engine */
	uint8_t kind;
	bool in_flight;
	uint8_t turn;                   /* of the device's: see age.h */
	int fd;
	int flags;                      /* RWF_*, MSG_*, FALLOC_FL_* or POSIX_FADV_*, by kind */
	int res;                        /* of one that is over and not told yet */
	uint64_t length;                /* bytes */
	union {
		struct {
			void *at;       /* data, or the message to send */
			uint64_t offset;
		};
		struct __kernel_timespec after;
	};
	struct job job;                 /* for the engine that has threads */
};

struct ring {
	const struct engine *engine;
	void *state;                    /* the engine's */
	struct mailbox mail;            /* letters for the ring's thread */
	struct op *ready, **ready_end;  /* over, to be told without going to sleep */
	unsigned n_in_flight;
	bool stop;                      /* set by a letter or a callback: ring_run() returns */

	/* Called after every batch of completions, before the next system call. */
	void (*settle)(void *userdata);
	void *userdata;

	/* Called when an operation of the device's failed, or read nothing. */
	void (*device_failed)(void *userdata, int error);
	struct ages ages;               /* of the device's operations */

	/* Any thread may read it: since when this one waits for the device by itself, in
	 * nanoseconds (CLOCK_MONOTONIC); 0 while it does not. */
	_Atomic uint64_t blocked_since;

	unsigned round;                 /* counts the engine's waits */

	/* iovecs and message headers live here until the engine has taken them. */
	struct iovec *iov;
	unsigned iov_used, iov_mark;    /* mark: where the last message's begin */
	struct msghdr *messages;
	unsigned messages_used;
};

#define RING_IOV_MAX 2048u
#define RING_MESSAGES_MAX 256u

/* `n_buffers`: room for buffers given with ring_give_buffer(), a power of two. */
int ring_init(struct ring *ring, const struct engine *engine, unsigned n_buffers,
              struct failure *why);
void ring_deinit(struct ring *ring);

/* Serves the ring in the calling thread, the only one that ever does, until ring->stop. */
void ring_run(struct ring *ring);

/*
 * Starts what `what` describes: kind, descriptor, and what that kind needs.  Until `done`
 * runs, `op` and its object stay.  The functions below word the usual ones.
 */
void ring_start(struct ring *ring, struct op *op, op_done done, const struct op *what);

/* Does a device's operation right here, whether it blocks or not; `done` runs later as ever. */
void ring_perform(struct ring *ring, struct op *op, op_done done, const struct op *what);

/* Around calls of other kinds in which the ring's thread may have to wait for the device. */
void ring_blocks(struct ring *ring);
void ring_goes_on(struct ring *ring);

/* fdatasync(2) */
void ring_sync(struct ring *ring, struct op *op, op_done done, int fd);
/* fallocate(2) */
void ring_allocate(struct ring *ring, struct op *op, op_done done, int fd, int mode,
                   uint64_t offset, uint64_t length);
/* posix_fadvise(2) */
void ring_advise(struct ring *ring, struct op *op, op_done done, int fd, int advice,
                 uint64_t offset, uint32_t length);

/* Waits for data, then takes at most `length` bytes of it. */
void ring_receive(struct ring *ring, struct op *op, op_done done, int fd, void *at,
                  uint32_t length);
/* The same, into a buffer that was given with ring_give_buffer(), picked when data is there;
 * -ENOBUFS without one. */
void ring_receive_any(struct ring *ring, struct op *op, op_done done, int fd, uint32_t length);

/*
 * Sends what the socket takes, right here if it takes some; if it is full, waits until some of
 * it could be sent (or ends with -EINTR once it can).  `message` is from ring_message().
 */
void ring_send(struct ring *ring, struct op *op, op_done done, int fd, struct msghdr *message);
/* Until the socket takes data. */
void ring_await_writable(struct ring *ring, struct op *op, op_done done, int fd);
void ring_sleep(struct ring *ring, struct op *op, op_done done, unsigned milliseconds);

/* Asks a socket's operation to end early: its `done` still runs, with -ECANCELED or what it did. */
void ring_cancel(struct ring *ring, struct op *op);

/* The socket is about to be closed; nothing of it is in flight. */
void ring_forget(struct ring *ring, int fd);

/* A message header with room for `n` iovecs (at most RING_IOV_MAX), for the next ring_send(). */
struct msghdr *ring_message(struct ring *ring, unsigned n);

/* Gives a receive buffer to OP_RECEIVE_ANY, under the number `id`. */
void ring_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id);
