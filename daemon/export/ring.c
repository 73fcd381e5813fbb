/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "export/engine.h"

int ring_init(struct ring *ring, const struct engine *engine, unsigned n_buffers,
              struct failure *why)
{
	int r;

	*ring = (struct ring) { .engine = engine };
	ring->ready_end = &ring->ready;
	r = mailbox_init(&ring->mail, why);
	if (r < 0)
		return r;
	ring->iov = calloc(RING_IOV_MAX, sizeof *ring->iov);
	ring->messages = calloc(RING_MESSAGES_MAX, sizeof *ring->messages);
	if (!ring->iov || !ring->messages)
		return fail(why, ENOMEM, "cannot make a ring");
	return engine->open(ring, n_buffers, why);
}

/* Also of one that is all zeroes, or whose ring_init() failed. */
void ring_deinit(struct ring *ring)
{
	if (!ring->engine)
		return;
	ring->engine->close(ring);
	free(ring->iov);
	free(ring->messages);
	mailbox_deinit(&ring->mail);
	*ring = (struct ring) { 0 };
}

static bool is_of_device(const struct op *op)
{
	return op->kind <= OP_ADVISE;
}

static void begin(struct ring *ring, struct op *op, op_done done, const struct op *what)
{
	assert(!op->in_flight);
	*op = *what;
	op->done = done;
	op->in_flight = true;
	ring->n_in_flight++;
	if (is_of_device(op))
		op->turn = ages_begin(&ring->ages);
}

void ring_start(struct ring *ring, struct op *op, op_done done, const struct op *what)
{
	begin(ring, op, done, what);
	ring->engine->start(ring, op);
}

void ring_end(struct ring *ring, struct op *op, int res, int buffer)
{
	assert(op->in_flight);
	op->in_flight = false;          /* before done(), which may start it again */
	ring->n_in_flight--;
	if (is_of_device(op)) {
		ages_end(&ring->ages, op->turn);
		if (res < 0 || (res == 0 && op->kind <= OP_WRITE))
			ring->device_failed(ring->userdata, -res);
	}
	op->done(op, res, buffer);
}

void ring_end_unbegun(struct ring *ring, struct op *op, int buffer)
{
	int res = -ECANCELED;

	if (is_of_device(op)) {
		ring_blocks(ring);
		res = op_perform(op);
		ring_goes_on(ring);
	}
	ring_end(ring, op, res, buffer);
}

void ring_end_later(struct ring *ring, struct op *op, int res)
{
	op->res = res;
	op->next = NULL;
	*ring->ready_end = op;
	ring->ready_end = &op->next;
}

/* Turns without a look at what else has happened. */
#define TURNS_MAX 8u

static void tell_ready(struct ring *ring)
{
	struct op *op = ring->ready, *next;

	ring->ready = NULL;
	ring->ready_end = &ring->ready;
	for (; op; op = next) {
		next = op->next;
		ring_end(ring, op, op->res, RING_NO_BUFFER);
	}
}

void ring_run(struct ring *ring)
{
	ring->engine->enter(ring);
	while (!ring->stop) {
		unsigned turns = 0;

		ring->engine->wait(ring, !ring->ready);
		ring->round++;
		/* What is over at once goes on at once, but not for ever. */
		do {
			tell_ready(ring);
			ring->settle(ring->userdata);
		} while (ring->ready && !ring->stop && ++turns < TURNS_MAX);
	}
}

void ring_sync(struct ring *ring, struct op *op, op_done done, int fd)
{
	ring_start(ring, op, done, &(struct op) { .kind = OP_SYNC, .fd = fd });
}

void ring_allocate(struct ring *ring, struct op *op, op_done done, int fd, int mode,
                   uint64_t offset, uint64_t length)
{
	ring_start(ring, op, done, &(struct op) {
		.kind = OP_ALLOCATE, .fd = fd, .flags = mode, .offset = offset, .length = length,
	});
}

void ring_advise(struct ring *ring, struct op *op, op_done done, int fd, int advice,
                 uint64_t offset, uint32_t length)
{
	ring_start(ring, op, done, &(struct op) {
		.kind = OP_ADVISE, .fd = fd, .flags = advice, .offset = offset, .length = length,
	});
}

void ring_receive(struct ring *ring, struct op *op, op_done done, int fd, void *at,
                  uint32_t length)
{
	ring_start(ring, op, done, &(struct op) {
		.kind = OP_RECEIVE, .fd = fd, .at = at, .length = length,
	});
}

void ring_receive_any(struct ring *ring, struct op *op, op_done done, int fd, uint32_t length)
{
	ring_start(ring, op, done, &(struct op) {
		.kind = OP_RECEIVE_ANY, .fd = fd, .length = length,
	});
}

void ring_send(struct ring *ring, struct op *op, op_done done, int fd, struct msghdr *message)
{
	struct op what = { .kind = OP_SEND, .fd = fd, .at = message, .flags = MSG_NOSIGNAL };
	ssize_t n = sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN) {
		ring_start(ring, op, done, &what);
		return;
	}
	begin(ring, op, done, &what);
	ring_end_later(ring, op, n < 0 ? -errno : (int) n);
	ring->messages_used--;
	ring->iov_used = ring->iov_mark;
}

void ring_await_writable(struct ring *ring, struct op *op, op_done done, int fd)
{
	ring_start(ring, op, done, &(struct op) { .kind = OP_WRITABLE, .fd = fd });
}

void ring_sleep(struct ring *ring, struct op *op, op_done done, unsigned milliseconds)
{
	ring_start(ring, op, done, &(struct op) {
		.kind = OP_TIMER,
		.after = { .tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000 },
	});
}

void ring_perform(struct ring *ring, struct op *op, op_done done, const struct op *what)
{
	begin(ring, op, done, what);
	ring_blocks(ring);
	ring_end_later(ring, op, op_perform(op));
	ring_goes_on(ring);
}

void ring_blocks(struct ring *ring)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	atomic_store_explicit(&ring->blocked_since, (uint64_t) now.tv_sec * 1000000000 +
	                      (uint64_t) now.tv_nsec, memory_order_relaxed);
}

void ring_goes_on(struct ring *ring)
{
	atomic_store_explicit(&ring->blocked_since, 0, memory_order_relaxed);
}

void ring_cancel(struct ring *ring, struct op *op)
{
	if (op->in_flight)
		ring->engine->cancel(ring, op);
}

void ring_forget(struct ring *ring, int fd)
{
	ring->engine->forget(ring, fd);
}

struct msghdr *ring_message(struct ring *ring, unsigned n)
{
	struct msghdr *msg;

	assert(n <= RING_IOV_MAX);
	while (ring->iov_used + n > RING_IOV_MAX || ring->messages_used == RING_MESSAGES_MAX ||
	       !ring->engine->has_room(ring))
		ring->engine->flush(ring);
	msg = &ring->messages[ring->messages_used++];
	*msg = (struct msghdr) { .msg_iov = &ring->iov[ring->iov_used] };
	ring->iov_mark = ring->iov_used;
	ring->iov_used += n;
	return msg;
}

void ring_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id)
{
	ring->engine->give_buffer(ring, at, size, id);
}
