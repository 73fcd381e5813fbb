/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One io_uring and the thread that owns it: starts operations, calls back when they end.
 *
 * The ring starts disabled and restricted (IORING_REGISTER_RESTRICTIONS) to the operations
 * that this program uses, since seccomp does not see what a ring does.  It is set up by
 * any thread and enabled by the one that will use it.
 *
 * The tag of an operation is the address of its `struct op`, which lies inside the object
 * that the operation is for.  That object must outlive the operation; op->in_flight is
 * asserted both ways, so a completion that nobody waits for stops the process rather than
 * touch memory that has another owner by now.
 */
#pragma once

#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/failure.h"
#include "export/mailbox.h"

/* Receive buffers that the kernel picks from when data arrives; see receive.c. */
#define RING_BUFFER_GROUP 0

struct op {
	/* `res`: bytes, or a negative errno; `flags`: IORING_CQE_F_* and the buffer picked. */
	void (*done)(struct op *op, int res, uint32_t flags);
	bool in_flight;
};

struct ring {
	struct io_uring uring;
	struct mailbox mail;            /* letters for the ring's thread */
	struct op mail_op;
	unsigned n_in_flight;
	bool stop;                      /* set by a letter or a callback: ring_run() returns */

	/* Called after every batch of completions, before the next system call. */
	void (*settle)(void *userdata);
	void *userdata;

	/* iovecs and message headers live here until the kernel has read them (submit). */
	struct iovec *iov;
	unsigned iov_used;
	struct msghdr *messages;
	unsigned messages_used;

	struct io_uring_buf_ring *buffers;
	unsigned buffers_mask;

	uint64_t n_submits;             /* system calls made; for the figures */
};

#define RING_ENTRIES 512u
#define RING_IOV_MAX 2048u
#define RING_MESSAGES_MAX 256u

/* `n_buffers`: room in the group of receive buffers, a power of two. */
int ring_init(struct ring *ring, unsigned n_buffers, struct failure *why);
void ring_deinit(struct ring *ring);

/* Enables the ring in the calling thread and serves it until ring->stop. */
void ring_run(struct ring *ring);

/* An empty submission entry; never NULL (submits what is pending when the queue is full). */
struct io_uring_sqe *ring_sqe(struct ring *ring);

/* Starts the prepared entry.  Until `done` runs, `op` and its object stay. */
void ring_start(struct ring *ring, struct io_uring_sqe *sqe, struct op *op,
                void (*done)(struct op *op, int res, uint32_t flags));

/* Asks an operation to end early: its `done` still runs, with -ECANCELED or what it did. */
void ring_cancel(struct ring *ring, struct op *op);

/* A message header with room for `n` iovecs (at most RING_IOV_MAX), good until the next submit; the
 * next ring_sqe() is sure not to submit. */
struct msghdr *ring_message(struct ring *ring, unsigned n);

/* Hands a receive buffer to the kernel's group, under the number `id`. */
void ring_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id);
