/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's liburing (2.3) has these two in its header, but does not export them. */
static int register_ring(const struct io_uring *uring, unsigned opcode, const void *arg, unsigned n)
{
	int r = (int) syscall(__NR_io_uring_register, uring->ring_fd, opcode, arg, n);

	return r < 0 ? -errno : r;
}

/* Every operation a ring of ours may ever start; anything else is refused by the kernel. */
static const uint8_t allowed_ops[] = {
	IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_FADVISE,
	IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT,
	IORING_OP_ASYNC_CANCEL,
};

static int restrict_ring(struct io_uring *uring)
{
	struct io_uring_restriction rules[ARRAY_LEN(allowed_ops) + 2] = { 0 };
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_LEN(allowed_ops); i++) {
		rules[n].opcode = IORING_RESTRICTION_SQE_OP;
		rules[n++].sqe_op = allowed_ops[i];
	}
	rules[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[n++].sqe_flags = IOSQE_BUFFER_SELECT;
	rules[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[n++].register_op = IORING_REGISTER_ENABLE_RINGS;
	return register_ring(uring, IORING_REGISTER_RESTRICTIONS, rules, n);
}

/* DEFER_TASKRUN came with Linux 6.1, SINGLE_ISSUER with 6.0: older kernels go without. */
static int set_up(struct io_uring *uring)
{
	static const unsigned wishes[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; r == -EINVAL && i < ARRAY_LEN(wishes); i++) {
		struct io_uring_params params = {
			.flags = wishes[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
			         IORING_SETUP_CLAMP,
			.cq_entries = 8 * RING_ENTRIES,
		};

		r = io_uring_queue_init_params(RING_ENTRIES, uring, &params);
	}
	return r;
}

static int register_buffer_group(struct ring *ring, unsigned n)
{
	struct io_uring_buf_reg reg = { .ring_entries = n, .bgid = RING_BUFFER_GROUP };
	void *at;

	at = mmap(NULL, n * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
	          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	ring->buffers = at;
	ring->buffers_mask = (unsigned) io_uring_buf_ring_mask(n);
	io_uring_buf_ring_init(ring->buffers);
	reg.ring_addr = (uint64_t) (uintptr_t) at;
	return io_uring_register_buf_ring(&ring->uring, &reg, 0);
}

int ring_init(struct ring *ring, unsigned n_buffers, struct failure *why)
{
	int r;

	*ring = (struct ring) { .uring.ring_fd = -1 };
	r = mailbox_init(&ring->mail, why);
	if (r < 0)
		return r;
	ring->iov = calloc(RING_IOV_MAX, sizeof *ring->iov);
	ring->messages = calloc(RING_MESSAGES_MAX, sizeof *ring->messages);
	if (!ring->iov || !ring->messages)
		return fail(why, ENOMEM, "cannot make an io_uring");

	r = set_up(&ring->uring);
	if (r < 0) {
		ring->uring.ring_fd = -1;
		return fail(why, -r, "cannot make an io_uring (is kernel.io_uring_disabled set, "
		            "or a container's seccomp filter in the way?)");
	}
	r = register_buffer_group(ring, n_buffers);
	if (r < 0)
		return fail(why, -r, "cannot register receive buffers with io_uring (Linux 5.19 "
		            "or later is needed)");
	r = restrict_ring(&ring->uring);
	if (r < 0)
		return fail(why, -r, "cannot restrict the io_uring");
	return 0;
}

void ring_deinit(struct ring *ring)
{
	if (ring->uring.ring_fd >= 0)
		io_uring_queue_exit(&ring->uring);
	if (ring->buffers)
		munmap(ring->buffers, (ring->buffers_mask + 1) * sizeof(struct io_uring_buf));
	free(ring->iov);
	free(ring->messages);
	mailbox_deinit(&ring->mail);
	*ring = (struct ring) { .uring.ring_fd = -1, .mail.event = -1 };
}

static void submit(struct ring *ring, unsigned wait)
{
	int r = io_uring_submit_and_wait(&ring->uring, wait);

	/* EBUSY: completions must be reaped first; the caller is about to. */
	assert(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY);
	ring->n_submits++;
	ring->iov_used = 0;
	ring->messages_used = 0;
}

struct io_uring_sqe *ring_sqe(struct ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	while (!sqe) {
		submit(ring, 0);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}

void ring_start(struct ring *ring, struct io_uring_sqe *sqe, struct op *op,
                void (*done)(struct op *op, int res, uint32_t flags))
{
	assert(!op->in_flight);
	op->done = done;
	op->in_flight = true;
	ring->n_in_flight++;
	io_uring_sqe_set_data(sqe, op);
}

/* The cancel's own completion has no op: it is dropped in dispatch(). */
void ring_cancel(struct ring *ring, struct op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->in_flight)
		return;
	sqe = ring_sqe(ring);
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

struct msghdr *ring_message(struct ring *ring, unsigned n)
{
	struct msghdr *msg;

	assert(n <= RING_IOV_MAX);
	/* Also for the entry that will use it: ring_sqe() must not submit in between, which
	 * would give this message to the next who asks. */
	while (ring->iov_used + n > RING_IOV_MAX || ring->messages_used == RING_MESSAGES_MAX ||
	       io_uring_sq_space_left(&ring->uring) == 0)
		submit(ring, 0);
	msg = &ring->messages[ring->messages_used++];
	*msg = (struct msghdr) { .msg_iov = &ring->iov[ring->iov_used] };
	ring->iov_used += n;
	return msg;
}

void ring_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id)
{
	io_uring_buf_ring_add(ring->buffers, at, size, id, (int) ring->buffers_mask, 0);
	io_uring_buf_ring_advance(ring->buffers, 1);
}

static void dispatch(struct ring *ring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		struct op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;
		uint32_t flags = cqe->flags;

		io_uring_cqe_seen(&ring->uring, cqe);
		if (!op)
			continue;
		assert(op->in_flight);
		op->in_flight = false;          /* before done(), which may start it again */
		ring->n_in_flight--;
		op->done(op, res, flags);
	}
}

static void watch_mail(struct ring *ring);

static void on_mail(struct op *op, int res, uint32_t flags)
{
	struct ring *ring = container_of(op, struct ring, mail_op);

	(void) res;
	(void) flags;
	mailbox_empty(&ring->mail);
	if (!ring->stop)
		watch_mail(ring);
}

static void watch_mail(struct ring *ring)
{
	struct io_uring_sqe *sqe = ring_sqe(ring);

	io_uring_prep_poll_add(sqe, ring->mail.event, POLLIN);
	ring_start(ring, sqe, &ring->mail_op, on_mail);
}

void ring_run(struct ring *ring)
{
	int r = register_ring(&ring->uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	assert(r == 0);
	watch_mail(ring);
	while (!ring->stop) {
		submit(ring, 1);
		dispatch(ring);
		ring->settle(ring->userdata);
	}
}
