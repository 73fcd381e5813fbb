/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop of a worker: events say which sessions can do something, each of them gets a turn,
 * and then the kernel is asked again, so that none keeps the others waiting.
 */
#include "tls/worker.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "tls/session.h"

#define EVENTS 64
#define SPARE_MAX 8u            /* buffers that are kept for the next session */

int worker_init(struct worker *worker, struct mailbox *news, unsigned last_words,
                struct failure *why)
{
	struct epoll_event event = { .events = EPOLLIN };
	int r;

	*worker = (struct worker) {
		.news = news, .last_words = last_words, .epoll = -1, .next_deadline = UINT64_MAX,
	};
	TAILQ_INIT(&worker->sessions);
	TAILQ_INIT(&worker->ready);
	SLIST_INIT(&worker->spare);
	r = mailbox_init(&worker->inbox, why);
	if (r < 0)
		return r;
	worker->received = malloc(WORKER_BATCH);
	worker->plain = malloc(WORKER_BATCH);
	if (!worker->received || !worker->plain)
		return fail(why, ENOMEM, "cannot make a thread's buffers");
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll < 0 ||
	    epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->inbox.fd, &event) < 0)
		return fail(why, errno, "cannot make a thread's loop");
	return 0;
}

struct buffer *worker_take_buffer(struct worker *worker)
{
	struct buffer *b = SLIST_FIRST(&worker->spare);

	if (b) {
		SLIST_REMOVE_HEAD(&worker->spare, next);
		worker->n_spare--;
	} else {
		b = malloc(sizeof *b);
	}
	if (b)
		b->at = b->end = 0;
	return b;
}

void worker_give_back(struct worker *worker, struct buffer **buffer)
{
	struct buffer *b = take_ptr(*buffer);

	if (!b)
		return;
	if (worker->n_spare >= SPARE_MAX) {
		free(b);
		return;
	}
	SLIST_INSERT_HEAD(&worker->spare, b, next);
	worker->n_spare++;
}

void worker_expect(struct worker *worker, uint64_t deadline)
{
	if (deadline < worker->next_deadline)
		worker->next_deadline = deadline;
}

struct news *news_new(const struct session *session, enum news_kind kind,
                      const struct tls_record *record)
{
	uint8_t buffer[TLS_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct news *news;

	emit_tls_record(&out, record);
	news = emit_fits(&out) ? malloc(sizeof *news + out.len) : NULL;
	if (!news)
		return NULL;
	*news = (struct news) {
		.kind = kind, .link = session->link, .session = session->number,
		.request = session->request, .fd = -1, .len = out.len,
	};
	memcpy(news->peer, session->peer, sizeof news->peer);
	memcpy(news->record, buffer, out.len);
	return news;
}

static void make_ready(struct worker *worker, struct session *session)
{
	if (session->is_ready)
		return;
	session->is_ready = true;
	TAILQ_INSERT_TAIL(&worker->ready, session, in_ready);
}

static void forget(struct worker *worker, struct session *session)
{
	if (session->is_ready)
		TAILQ_REMOVE(&worker->ready, session, in_ready);
	TAILQ_REMOVE(&worker->sessions, session, in_sessions);
	session_free(session);
	atomic_fetch_sub(&worker->n_sessions, 1);
}

static void begin(struct worker *worker, struct session *session)
{
	TAILQ_INSERT_TAIL(&worker->sessions, session, in_sessions);
	session_begin(session, worker);
	make_ready(worker, session);
}

static void cancel(struct worker *worker, uint64_t number)
{
	struct session *s;

	TAILQ_FOREACH(s, &worker->sessions, in_sessions) {
		if (s->number != number)
			continue;
		if (s->state == SESSION_HANDSHAKE) {
			session_cancel(s);
			forget(worker, s);
		}
		return;
	}
}

static void take_orders(struct worker *worker)
{
	struct letters letters;

	mailbox_collect(&worker->inbox, &letters);
	while (!STAILQ_EMPTY(&letters)) {
		struct order *order = container_of(STAILQ_FIRST(&letters), struct order, letter);

		STAILQ_REMOVE_HEAD(&letters, next);
		if (order->kind == ORDER_START)
			begin(worker, order->session);
		else if (order->kind == ORDER_CANCEL)
			cancel(worker, order->number);
		else
			worker->stopping = true;
		free(order);
	}
}

static void note_event(struct worker *worker, struct end *end, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		end->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		end->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		end->hung_up = true;
	if (events & (EPOLLHUP | EPOLLERR))
		end->gone = true;
	make_ready(worker, end->session);
}

/* How long the kernel may wait: not at all while there is work. */
static int wait_for(const struct worker *worker)
{
	if (!TAILQ_EMPTY(&worker->ready))
		return 0;
	if (worker->next_deadline == UINT64_MAX)
		return -1;
	if (worker->next_deadline <= worker->now)
		return 0;
	return worker->next_deadline - worker->now < INT_MAX ?
		(int) (worker->next_deadline - worker->now) : INT_MAX;
}

static void collect_events(struct worker *worker)
{
	struct epoll_event events[EVENTS];
	bool has_orders = false;
	struct timespec now;
	int n = epoll_wait(worker->epoll, events, EVENTS, wait_for(worker));

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	worker->now = (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr)
			note_event(worker, events[i].data.ptr, events[i].events);
		else
			has_orders = true;
	}
	if (has_orders)                 /* last, for they may free what events point at */
		take_orders(worker);
}

/* One turn for each that was ready. */
static void give_turns(struct worker *worker)
{
	struct session_list turns = TAILQ_HEAD_INITIALIZER(turns);

	TAILQ_CONCAT(&turns, &worker->ready, in_ready);
	while (!TAILQ_EMPTY(&turns)) {
		struct session *s = TAILQ_FIRST(&turns);

		TAILQ_REMOVE(&turns, s, in_ready);
		s->is_ready = false;
		if (session_turn(s))
			make_ready(worker, s);
		if (s->state == SESSION_OVER)
			forget(worker, s);
	}
}

static void expire(struct worker *worker)
{
	struct session *s, *next;

	if (worker->now < worker->next_deadline)
		return;
	worker->next_deadline = UINT64_MAX;
	for (s = TAILQ_FIRST(&worker->sessions); s; s = next) {
		next = TAILQ_NEXT(s, in_sessions);
		if (s->deadline <= worker->now) {
			session_expired(s);
			forget(worker, s);
		} else {
			worker_expect(worker, s->deadline);
		}
	}
}

static void *run(void *arg)
{
	struct worker *worker = arg;
	struct session *s;

	while (!worker->stopping) {
		collect_events(worker);
		give_turns(worker);
		expire(worker);
	}
	while ((s = TAILQ_FIRST(&worker->sessions)))
		forget(worker, s);
	return NULL;
}

int worker_start(struct worker *worker, struct failure *why)
{
	int r = pthread_create(&worker->thread, NULL, run, worker);

	worker->started = r == 0;
	return r ? fail(why, r, "cannot start a thread") : 0;
}

void worker_order(struct worker *worker, struct order *order)
{
	mailbox_post(&worker->inbox, &order->letter);
}

void worker_stop(struct worker *worker)
{
	struct order *order = calloc(1, sizeof *order);
	struct buffer *b;

	if (worker->started && !order)
		return;                         /* the end of the process ends it */
	if (worker->started) {
		order->kind = ORDER_STOP;
		worker_order(worker, take_ptr(order));
		pthread_join(worker->thread, NULL);
	}
	free(order);
	while ((b = SLIST_FIRST(&worker->spare))) {
		SLIST_REMOVE_HEAD(&worker->spare, next);
		free(b);
	}
	free(worker->received);
	free(worker->plain);
	close_fd(&worker->epoll);
	mailbox_clear(&worker->inbox);
}
