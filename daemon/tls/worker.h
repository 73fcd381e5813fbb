/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that runs handshakes and relays, each session on one thread for good.
 *
 * The main thread posts orders to a worker and hears news from it; nothing else is shared.
 * Buffers are the worker's: a session holds one only while it has bytes that the other side
 * does not take, so an idle session, and a handshake that stalls, cost none.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/failure.h"
#include "tls/mailbox.h"
#include "wire/tls-channel.h"

#define WORKER_BATCH (128u << 10)       /* bytes taken from a socket at once */
#define WORKER_MAX_LINGERING 256u
#define BUFFER_SIZE (WORKER_BATCH + (32u << 10))        /* ... and what encryption adds, or a
                                                         * record whose beginning came before */

struct session;
TAILQ_HEAD(session_list, session);

struct buffer {
	SLIST_ENTRY(buffer) next;       /* among the spare ones */
	size_t at;                      /* what lies between is still to be sent */
	size_t end;
	uint8_t bytes[BUFFER_SIZE];
};

enum order_kind {
	ORDER_START,
	ORDER_CANCEL,
	ORDER_STOP,
};

struct order {
	struct letter letter;
	enum order_kind kind;
	struct session *session;        /* START: the worker's from now on */
	uint64_t number;                /* CANCEL: of the session */
};

enum news_kind {
	NEWS_ESTABLISHED,
	NEWS_FAILED,                    /* a handshake; also one that was cancelled */
	NEWS_ENDED,                     /* a session that had been established */
};

/* What the main thread does with it: sends the record, and logs. */
struct news {
	struct letter letter;
	enum news_kind kind;
	uint64_t link;                  /* whom to tell */
	uint64_t session;
	uint32_t request;
	uint32_t reason;
	int fd;                         /* ESTABLISHED: the plain end; -1 else */
	char peer[TLS_PEER_MAX + 1];
	char sentence[TLS_SENTENCE_MAX];
	size_t len;
	uint8_t record[];
};

struct worker {
	pthread_t thread;
	bool started;
	struct mailbox inbox;
	struct mailbox *news;           /* the main thread's */
	int epoll;
	bool stopping;
	unsigned last_words;            /* milliseconds for a client to take what the other program
	                                 * said last */
	atomic_uint n_sessions;         /* all that it has not freed */

	struct session_list sessions;
	struct session_list ready;      /* have something to do */
	unsigned n_lingering;
	uint64_t now;                   /* CLOCK_MONOTONIC, milliseconds */
	uint64_t next_deadline;         /* none is earlier; UINT64_MAX: there is none */

	SLIST_HEAD(, buffer) spare;
	unsigned n_spare;

	/* What has been received of the session that is being worked on; used up before the next. */
	uint8_t *received;
	size_t received_at;
	size_t received_end;
	uint8_t *plain;                 /* what is to be encrypted next */
};

int worker_init(struct worker *worker, struct mailbox *news, unsigned last_words,
                struct failure *why);

/* The thread inherits the sandbox as far as it has been entered. */
int worker_start(struct worker *worker, struct failure *why);

/* Takes the order over. */
void worker_order(struct worker *worker, struct order *order);

/* Ends its sessions and its thread. */
void worker_stop(struct worker *worker);

/* NULL when there is no memory. */
struct buffer *worker_take_buffer(struct worker *worker);
void worker_give_back(struct worker *worker, struct buffer **buffer);

/* The session is looked at again by then at the latest. */
void worker_expect(struct worker *worker, uint64_t deadline);

/* Tells the main thread; a record that there is no memory for is lost with its session. */
struct news *news_new(const struct session *session, enum news_kind kind,
                      const struct tls_record *record);
