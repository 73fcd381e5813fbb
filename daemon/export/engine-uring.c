/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine that is io_uring(7).
 *
 * It starts disabled and restricted (IORING_REGISTER_RESTRICTIONS) to the operations
 * that this program uses, since seccomp does not see what a ring does.  The tag of an operation
 * is the address of its `struct op`; a cancellation has none.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "export/engine.h"

#define ENTRIES 512u
#define BUFFER_GROUP 0
#define WORKERS_MIN 16

struct uring {
	struct io_uring io;
	struct ring *ring;
	struct op mail_op;
	struct io_uring_buf_ring *buffers;
	unsigned n_buffers;
};

/* Debian 12's liburing (2.3) has these two in its header, but does not export them. */
static int register_ring(const struct io_uring *io, unsigned opcode, const void *arg, unsigned n)
{
	int r = (int) syscall(__NR_io_uring_register, io->ring_fd, opcode, arg, n);

	return r < 0 ? -errno : r;
}

/* Every operation a ring of ours may ever start; anything else is refused by the kernel. */
static const uint8_t allowed_ops[] = {
	IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_FADVISE,
	IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT,
	IORING_OP_ASYNC_CANCEL,
};

static int restrict_ring(struct io_uring *io)
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
	return register_ring(io, IORING_REGISTER_RESTRICTIONS, rules, n);
}

/* DEFER_TASKRUN came with Linux 6.1, SINGLE_ISSUER with 6.0: older kernels go without. */
static int set_up(struct io_uring *io)
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
			.cq_entries = 8 * ENTRIES,
		};

		r = io_uring_queue_init_params(ENTRIES, io, &params);
	}
	return r;
}

/* Threads for what blocks: as many as the kernel would have, but no fewer than the other engine.
 * One is made only when the others sleep. */
static void allow_workers(struct io_uring *io)
{
	long n = 4 * sysconf(_SC_NPROCESSORS_ONLN);
	unsigned limits[2] = { n < WORKERS_MIN ? WORKERS_MIN : n > ENTRIES ? ENTRIES : (unsigned) n };

	(void) register_ring(io, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, ARRAY_LEN(limits));
}

static int register_buffer_group(struct uring *u, unsigned n)
{
	struct io_uring_buf_reg reg = { .ring_entries = n, .bgid = BUFFER_GROUP };
	void *at;

	at = mmap(NULL, n * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
	          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	u->buffers = at;
	u->n_buffers = n;
	io_uring_buf_ring_init(u->buffers);
	reg.ring_addr = (uint64_t) (uintptr_t) at;
	return io_uring_register_buf_ring(&u->io, &reg, 0);
}

static int uring_open(struct ring *ring, unsigned n_buffers, struct failure *why)
{
	struct uring *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return fail(why, ENOMEM, "cannot make an io_uring");
	u->ring = ring;
	u->io.ring_fd = -1;
	ring->state = u;
	r = set_up(&u->io);
	if (r < 0) {
		u->io.ring_fd = -1;
		return fail(why, -r, "cannot make an io_uring (is kernel.io_uring_disabled set, "
		            "or a container's seccomp filter in the way?)");
	}
	allow_workers(&u->io);
	r = register_buffer_group(u, n_buffers);
	if (r < 0)
		return fail(why, -r, "cannot register receive buffers with io_uring (Linux 5.19 "
		            "or later is needed)");
	r = restrict_ring(&u->io);
	if (r < 0)
		return fail(why, -r, "cannot restrict the io_uring");
	return 0;
}

static void uring_close(struct ring *ring)
{
	struct uring *u = ring->state;

	if (!u)
		return;
	if (u->io.ring_fd >= 0)
		io_uring_queue_exit(&u->io);
	if (u->buffers)
		munmap(u->buffers, u->n_buffers * sizeof(struct io_uring_buf));
	free(u);
	ring->state = NULL;
}

/* Messages may be used again when the kernel has read all that was prepared. */
static void submitted(struct uring *u, int r)
{
	/* EBUSY: completions must be reaped first; the caller is about to. */
	assert(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY);
	if (io_uring_sq_ready(&u->io) > 0)
		return;
	u->ring->iov_used = 0;
	u->ring->messages_used = 0;
}

static void submit(struct uring *u)
{
	submitted(u, io_uring_submit(&u->io));
}

/* Never NULL: submits what is pending when the queue is full. */
static struct io_uring_sqe *get_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->io);

	while (!sqe) {
		submit(u);
		sqe = io_uring_get_sqe(&u->io);
	}
	return sqe;
}

static void watch_mail(struct uring *u)
{
	struct io_uring_sqe *sqe = get_sqe(u);

	io_uring_prep_poll_add(sqe, u->ring->mail.event, POLLIN);
	io_uring_sqe_set_data(sqe, &u->mail_op);
}

static void on_mail(struct uring *u)
{
	mailbox_empty(&u->ring->mail);
	if (!u->ring->stop)
		watch_mail(u);
}

static void uring_enter(struct ring *ring)
{
	struct uring *u = ring->state;
	int r = register_ring(&u->io, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	assert(r == 0);
	watch_mail(u);
}

static void prepare_read(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_read(sqe, op->fd, op->at, (unsigned) op->length, op->offset);
}

static void prepare_write(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_write(sqe, op->fd, op->at, (unsigned) op->length, op->offset);
	sqe->rw_flags = op->flags;
}

static void prepare_sync(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
}

static void prepare_allocate(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_fallocate(sqe, op->fd, op->flags, (off_t) op->offset, (off_t) op->length);
}

static void prepare_advise(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_fadvise(sqe, op->fd, op->offset, (uint32_t) op->length, op->flags);
}

static void prepare_receive(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_recv(sqe, op->fd, op->at, op->length, 0);
}

static void prepare_receive_any(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_recv(sqe, op->fd, NULL, op->length, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
}

static void prepare_send(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_sendmsg(sqe, op->fd, op->at, (unsigned) op->flags);
}

static void prepare_writable(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_poll_add(sqe, op->fd, POLLOUT);
}

static void prepare_timer(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_timeout(sqe, &op->after, 0, 0);
}

static void (*const preparers[N_OP_KINDS])(struct io_uring_sqe *sqe, struct op *op) = {
	[OP_READ] = prepare_read,
	[OP_WRITE] = prepare_write,
	[OP_SYNC] = prepare_sync,
	[OP_ALLOCATE] = prepare_allocate,
	[OP_ADVISE] = prepare_advise,
	[OP_RECEIVE] = prepare_receive,
	[OP_RECEIVE_ANY] = prepare_receive_any,
	[OP_SEND] = prepare_send,
	[OP_WRITABLE] = prepare_writable,
	[OP_TIMER] = prepare_timer,
};

static void uring_start(struct ring *ring, struct op *op)
{
	struct io_uring_sqe *sqe = get_sqe(ring->state);

	preparers[op->kind](sqe, op);
	io_uring_sqe_set_data(sqe, op);
}

/* The cancellation's own completion has no op: it is dropped in reap(). */
static void uring_cancel(struct ring *ring, struct op *op)
{
	struct io_uring_sqe *sqe = get_sqe(ring->state);

	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

static void uring_forget(struct ring *ring, int fd)
{
	(void) ring;
	(void) fd;
}

static void uring_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id)
{
	struct uring *u = ring->state;

	io_uring_buf_ring_add(u->buffers, at, size, id, io_uring_buf_ring_mask(u->n_buffers), 0);
	io_uring_buf_ring_advance(u->buffers, 1);
}

static bool uring_has_room(const struct ring *ring)
{
	const struct uring *u = ring->state;

	return io_uring_sq_space_left(&u->io) > 0;
}

static void uring_flush(struct ring *ring)
{
	submit(ring->state);
}

static void reap(struct uring *u)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&u->io, &cqe) == 0) {
		struct op *op = io_uring_cqe_get_data(cqe);
		bool picked = cqe->flags & IORING_CQE_F_BUFFER;
		int res = cqe->res;
		int buffer = picked ? (int) (cqe->flags >> IORING_CQE_BUFFER_SHIFT) : RING_NO_BUFFER;

		io_uring_cqe_seen(&u->io, cqe);
		if (op == &u->mail_op)
			on_mail(u);
		else if (op && res == -ECANCELED)       /* by us, or no thread could be made for it */
			ring_end_unbegun(u->ring, op, buffer);
		else if (op)
			ring_end(u->ring, op, res, buffer);
	}
}

static void uring_wait(struct ring *ring, bool sleep)
{
	struct uring *u = ring->state;

	if (sleep)
		submitted(u, io_uring_submit_and_wait(&u->io, 1));
	else
		submitted(u, io_uring_submit_and_get_events(&u->io));
	reap(u);
}

const struct engine uring_engine = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.enter = uring_enter,
	.start = uring_start,
	.cancel = uring_cancel,
	.forget = uring_forget,
	.give_buffer = uring_give_buffer,
	.has_room = uring_has_room,
	.flush = uring_flush,
	.wait = uring_wait,
};
