/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client: first its handshake, then its relay, then a moment in which it can still
 * read what it was told last.
 */
#pragma once

#include <gnutls/gnutls.h>

#include "tls/certificate.h"
#include "tls/worker.h"

enum session_state {
	SESSION_HANDSHAKE,
	SESSION_RELAY,
	SESSION_LINGER,                 /* all is said; what still comes is thrown away */
	SESSION_OVER,                   /* to be freed by the worker */
};

/* One descriptor in epoll, edge-triggered: what it is good for until it says EAGAIN. */
struct end {
	struct session *session;
	int fd;
	bool readable;
	bool writable;
	bool hung_up;                   /* the end of file is near: a short read does not mean
	                                 * that there is nothing more */
	bool gone;                      /* the other side reads no more, either */
};

struct session {
	TAILQ_ENTRY(session) in_sessions;
	TAILQ_ENTRY(session) in_ready;
	bool is_ready;
	bool lingers;                   /* counted by the worker */
	struct worker *worker;
	enum session_state state;
	uint64_t number;
	uint64_t link;                  /* whom to tell */
	uint32_t request;
	uint8_t required;               /* enum tls_certificate */
	uint32_t patience;              /* milliseconds for the handshake */
	uint64_t deadline;              /* UINT64_MAX: none */
	char peer[TLS_PEER_MAX + 1];
	char host[TLS_HOST_MAX + 1];    /* of a server, of which we are the client; "" else */

	gnutls_session_t tls;
	struct certificate_session about;
	struct end client;
	struct end plain;               /* our end of the socketpair; from the relay on */
	struct buffer *out;             /* encrypted, for the client */
	struct buffer *in;              /* plain, for the other program */
	int broken;                     /* what a receive from the client failed with; 0: nothing */
	bool client_closed;             /* end of file from the client */
	bool said_goodbye;              /* close_notify came */
	bool in_shut;                   /* ... and was passed on, or nobody is there to hear */
	bool plain_closed;              /* end of file from the other program; close_notify is
	                                 * sent, or in `out` */
};

/* Takes `fd` and a reference of the credentials over, on success only.  Main thread.  With a host it
 * is a connection to that server. */
int session_new(struct credentials *credentials, const struct tls_start *start, struct span host,
                int fd, struct session **ret, struct failure *why);

/* connect.c: we are the client. */
int prepare_as_client(struct session *session);

/* Why the server cannot be trusted; false when it was something else. */
bool server_is_refused(const struct session *session, char *ret, size_t size);

/* The worker has it from now on. */
void session_begin(struct session *session, struct worker *worker);
void session_free(struct session *session);

/* One turn in each direction.  Whether there may be more to do at once. */
bool session_turn(struct session *session);

/* Its deadline has passed: of the handshake, of what was said last, of lingering. */
void session_expired(struct session *session);

/* Its client was given up. */
void session_cancel(struct session *session);

/* Ends the handshake (in handshake.c) or the relay, and tells why. */
void session_fail(struct session *session, enum reason reason, const char *fmt, ...) PRINTF(3, 4);
void session_end(struct session *session, enum reason reason, const char *fmt, ...) PRINTF(3, 4);

/* handshake.c */
bool handshake_turn(struct session *session);

/* relay.c */
bool relay_turn(struct session *session);
/* What was received with the end of the handshake. */
void relay_take_received(struct session *session);

/* transport.c: between GnuTLS and the client's socket. */

/* Registers it with the worker's epoll. */
int end_watch(struct end *end, struct session *session, int fd);
void end_close(struct end *end);

void transport_attach(struct session *session);

/* Receives into the worker's room, which must be empty.  False when nothing came for now. */
bool transport_fill(struct session *session);
bool transport_has_received(const struct session *session);

/* Sends what is in session->out.  0 when all is sent, -EAGAIN, or what went wrong. */
int transport_flush(struct session *session);

/* Sends as much of it as goes; gives the buffer back when it is empty. */
int end_send(struct end *end, struct buffer **buffer);
