/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine for hosts without io_uring: epoll(7) for sockets, a pool of threads for what the
 * device does.
 *
 * Slower by some system calls a request, and by two changes of thread; in all else the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "export/engine.h"

#define IO_THREADS 16u
#define EVENTS_MAX 64
#define BUFFERS_MAX 256u

/* Who waits for a socket, by its descriptor. */
struct watch {
	struct op *in, *out;
	uint32_t events;                /* that epoll watches for */
	bool known;                     /* to epoll */
};

struct buffer {
	void *at;
	unsigned size;
	uint16_t id;
};

struct threads {
	struct ring *ring;
	struct pool pool;
	int epoll;
	struct watch *watches;
	unsigned n_watches;
	struct op *timers;
	struct buffer buffers[BUFFERS_MAX];
	unsigned n_buffers;
};

static int threads_open(struct ring *ring, unsigned n_buffers, struct failure *why)
{
	struct threads *t = calloc(1, sizeof *t);
	struct epoll_event mail = { .events = EPOLLIN, .data.fd = ring->mail.event };

	if (!t)
		return fail(why, ENOMEM, "cannot make an engine of threads");
	assert(n_buffers <= BUFFERS_MAX);
	t->ring = ring;
	ring->state = t;
	pool_init(&t->pool, IO_THREADS);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (t->epoll < 0 || epoll_ctl(t->epoll, EPOLL_CTL_ADD, ring->mail.event, &mail) < 0)
		return fail(why, errno, "cannot watch descriptors with epoll");
	return 0;
}

static void threads_close(struct ring *ring)
{
	struct threads *t = ring->state;

	if (!t)
		return;
	pool_deinit(&t->pool);
	close_fd(&t->epoll);
	free(t->watches);
	free(t);
	ring->state = NULL;
}

static void threads_enter(struct ring *ring)
{
	(void) ring;
}

/* In a thread of the pool. */
static void run_job(struct job *job)
{
	struct op *op = container_of(job, struct op, job);

	op->res = op_perform(op);
}

static void on_job_done(struct job *job)
{
	struct op *op = container_of(job, struct op, job);
	struct mailbox *mail = job->reply_to;

	ring_end(container_of(mail, struct ring, mail), op, op->res, RING_NO_BUFFER);
}

static void start_job(struct threads *t, struct op *op)
{
	op->job = (struct job) { .run = run_job, .done = on_job_done };
	pool_submit(&t->pool, &op->job, &t->ring->mail);
}

/* NULL when memory is out. */
static struct watch *watch_of(struct threads *t, int fd)
{
	unsigned n = t->n_watches;
	struct watch *grown;

	if ((unsigned) fd < n)
		return &t->watches[fd];
	while (n <= (unsigned) fd)
		n = n ? 2 * n : 64;
	grown = realloc(t->watches, n * sizeof *grown);
	if (!grown)
		return NULL;
	memset(grown + t->n_watches, 0, (n - t->n_watches) * sizeof *grown);
	t->watches = grown;
	t->n_watches = n;
	return &t->watches[fd];
}

/* Only what somebody waits for: epoll goes on telling what is left unread. */
static int watch_for(struct threads *t, struct watch *w, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (w->known && w->events == events)
		return 0;
	if (epoll_ctl(t->epoll, w->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	w->known = true;
	w->events = events;
	return 0;
}

static void await(struct threads *t, struct op *op, uint32_t event)
{
	struct watch *w = watch_of(t, op->fd);
	int r = w ? watch_for(t, w, op->fd, w->events | event) : -ENOMEM;

	if (r < 0)
		ring_end_later(t->ring, op, r);
	else if (event == EPOLLIN)
		w->in = op;
	else
		w->out = op;
}

static void start_input(struct threads *t, struct op *op)
{
	await(t, op, EPOLLIN);
}

static void start_output(struct threads *t, struct op *op)
{
	await(t, op, EPOLLOUT);
}

/* The socket was full just now.  The message is made anew when it is not. */
static void start_send(struct threads *t, struct op *op)
{
	t->ring->iov_used = 0;
	t->ring->messages_used = 0;
	start_output(t, op);
}

static uint64_t now_ms(void)
{
	return monotonic_us() / 1000;
}

/* op->length has no other use in a timer: its deadline, in milliseconds. */
static void start_timer(struct threads *t, struct op *op)
{
	op->length = now_ms() + (uint64_t) op->after.tv_sec * 1000 +
	             (uint64_t) op->after.tv_nsec / 1000000;
	op->next = t->timers;
	t->timers = op;
}

static void (*const starters[N_OP_KINDS])(struct threads *t, struct op *op) = {
	[OP_READ] = start_job,
	[OP_WRITE] = start_job,
	[OP_SYNC] = start_job,
	[OP_ALLOCATE] = start_job,
	[OP_ADVISE] = start_job,
	[OP_RECEIVE] = start_input,
	[OP_RECEIVE_ANY] = start_input,
	[OP_SEND] = start_send,
	[OP_WRITABLE] = start_output,
	[OP_TIMER] = start_timer,
};

static void threads_start(struct ring *ring, struct op *op)
{
	starters[op->kind](ring->state, op);
}

/* One that is over already, or with the pool, ends as it does. */
static void threads_cancel(struct ring *ring, struct op *op)
{
	struct threads *t = ring->state;
	struct watch *w = (unsigned) op->fd < t->n_watches ? &t->watches[op->fd] : NULL;

	if (w && w->in == op)
		w->in = NULL;
	else if (w && w->out == op)
		w->out = NULL;
	else
		return;
	ring_end_later(ring, op, -ECANCELED);
}

static void threads_forget(struct ring *ring, int fd)
{
	struct threads *t = ring->state;
	struct watch *w = (unsigned) fd < t->n_watches ? &t->watches[fd] : NULL;

	if (!w)
		return;
	assert(!w->in && !w->out);
	if (w->known)
		(void) epoll_ctl(t->epoll, EPOLL_CTL_DEL, fd, NULL);
	*w = (struct watch) { 0 };
}

static void threads_give_buffer(struct ring *ring, void *at, unsigned size, uint16_t id)
{
	struct threads *t = ring->state;

	assert(t->n_buffers < BUFFERS_MAX);
	t->buffers[t->n_buffers++] = (struct buffer) { at, size, id };
}

static bool threads_has_room(const struct ring *ring)
{
	(void) ring;
	return true;
}

static void threads_flush(struct ring *ring)
{
	ring->iov_used = 0;
	ring->messages_used = 0;
}

/* Each of these: the result, or -EAGAIN to go on waiting. */
static int try_receive(struct threads *t, struct op *op, int *ret_buffer)
{
	ssize_t n = recv(op->fd, op->at, op->length, MSG_DONTWAIT);

	(void) t;
	(void) ret_buffer;
	return n < 0 ? -errno : (int) n;
}

static int try_receive_any(struct threads *t, struct op *op, int *ret_buffer)
{
	struct buffer *b;
	ssize_t n;

	if (t->n_buffers == 0)
		return -ENOBUFS;
	b = &t->buffers[t->n_buffers - 1];
	n = recv(op->fd, b->at, op->length < b->size ? op->length : b->size, MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	*ret_buffer = b->id;
	t->n_buffers--;
	return (int) n;
}

/* One that waited to send tries again from the start: what was to be sent is gone by now. */
static int tell_writable(struct threads *t, struct op *op, int *ret_buffer)
{
	(void) t;
	(void) ret_buffer;
	return op->kind == OP_SEND ? -EINTR : 0;
}

static int (*const tries[N_OP_KINDS])(struct threads *t, struct op *op, int *ret_buffer) = {
	[OP_RECEIVE] = try_receive,
	[OP_RECEIVE_ANY] = try_receive_any,
	[OP_SEND] = tell_writable,
	[OP_WRITABLE] = tell_writable,
};

static void go_on(struct threads *t, struct op **waiting)
{
	struct op *op = *waiting;
	int buffer = RING_NO_BUFFER;
	int res = tries[op->kind](t, op, &buffer);

	if (res == -EAGAIN)
		return;
	*waiting = NULL;
	ring_end(t->ring, op, res, buffer);
}

/* Nobody waits for what came: epoll would tell it for ever, an error even unasked. */
static void ignore_event(struct threads *t, struct watch *w, int fd, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR)) {
		(void) epoll_ctl(t->epoll, EPOLL_CTL_DEL, fd, NULL);
		*w = (struct watch) { 0 };
	} else {
		(void) watch_for(t, w, fd, w->events & ~events);
	}
}

/* Input stays watched for: it is usually waited for again at once.  The table may move while an
 * operation ends, so it is looked up again each time. */
static void on_event(struct threads *t, int fd, uint32_t events)
{
	bool in = events & (EPOLLIN | EPOLLHUP | EPOLLERR) && t->watches[fd].in;
	bool out = events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && t->watches[fd].out;

	if (in)
		go_on(t, &t->watches[fd].in);
	if (out)
		go_on(t, &t->watches[fd].out);
	if (out && !t->watches[fd].out)
		(void) watch_for(t, &t->watches[fd], fd, t->watches[fd].events & ~(uint32_t) EPOLLOUT);
	if (!in && !out)
		ignore_event(t, &t->watches[fd], fd, events);
}

/* How long to sleep: -1 for ever. */
static int until_timer(const struct threads *t)
{
	uint64_t now = now_ms(), least = UINT64_MAX;

	for (const struct op *op = t->timers; op; op = op->next)
		if (op->length < least)
			least = op->length;
	if (least == UINT64_MAX)
		return -1;
	return least <= now ? 0 : (int) (least - now);
}

static void ring_timers(struct threads *t)
{
	struct op **at = &t->timers;
	uint64_t now;

	if (!*at)
		return;
	now = now_ms();
	while (*at) {
		struct op *op = *at;

		if (op->length > now) {
			at = &op->next;
			continue;
		}
		*at = op->next;
		ring_end_later(t->ring, op, -ETIME);
	}
}

static void threads_wait(struct ring *ring, bool sleep)
{
	struct threads *t = ring->state;
	struct epoll_event events[EVENTS_MAX];
	int n;

	n = epoll_wait(t->epoll, events, EVENTS_MAX, sleep ? until_timer(t) : 0);
	assert(n >= 0 || errno == EINTR);
	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == ring->mail.event)
			mailbox_empty(&ring->mail);
		else
			on_event(t, events[i].data.fd, events[i].events);
	}
	ring_timers(t);
}

const struct engine threads_engine = {
	.name = "threads",
	.open = threads_open,
	.close = threads_close,
	.enter = threads_enter,
	.start = threads_start,
	.cancel = threads_cancel,
	.forget = threads_forget,
	.give_buffer = threads_give_buffer,
	.has_room = threads_has_room,
	.flush = threads_flush,
	.wait = threads_wait,
};
