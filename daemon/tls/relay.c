/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The relay: a bounded buffer each way, and neither waits for the other.
 *
 * A direction takes new bytes only when what it took before is all delivered, so who stops
 * reading stops being read.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "tls/session.h"

#define RECORD_SIZE 16384u      /* the most that TLS has in one */

static bool is_over(const struct session *session)
{
	return session->state != SESSION_RELAY;
}

/* The client's side is gone: whether it had said goodbye makes the difference. */
static void end_by_client(struct session *session)
{
	if (session->said_goodbye || session->plain_closed)
		session_end(session, REASON_DISCONNECT, "the session is over");
	else if (session->broken)
		session_end(session, REASON_TLS_CUT,
		            "the connection was cut without close_notify: %s",
		            strerror(session->broken));
	else
		session_end(session, REASON_TLS_CUT, "the connection was cut without close_notify");
}

static void end_broken(struct session *session, int error)
{
	const char *alert = error == GNUTLS_E_FATAL_ALERT_RECEIVED ?
		gnutls_alert_get_name(gnutls_alert_get(session->tls)) : NULL;

	(void) gnutls_alert_send_appropriate(session->tls, error);
	session_end(session, REASON_TLS_BROKEN, "%s%s%s", gnutls_strerror(error),
	            alert ? ": " : "", alert ? alert : "");
}

/* From the client to the other program */

static void deliver(struct session *session)
{
	int r = end_send(&session->plain, &session->in);

	/* Nobody reads it any more; what it said last is still to be sent. */
	if (r < 0 && r != -EAGAIN) {
		worker_give_back(session->worker, &session->in);
		session->in_shut = true;
		session->plain.readable = session->plain.hung_up = true;
	}
	if (r == 0 && session->said_goodbye && !session->in_shut) {
		(void) shutdown(session->plain.fd, SHUT_WR);
		session->in_shut = true;
	}
}

/* What a result of gnutls_record_recv() that is no data means.  True to go on. */
static bool take_oddity(struct session *session, ssize_t n, size_t before)
{
	if (n == 0) {
		session->said_goodbye = true;
		return false;
	}
	if (n == GNUTLS_E_REHANDSHAKE) {
		(void) gnutls_alert_send(session->tls, GNUTLS_AL_FATAL,
		                         GNUTLS_A_NO_RENEGOTIATION);
		session_end(session, REASON_TLS_BROKEN, "the client wanted to renegotiate");
		return false;
	}
	if (gnutls_error_is_fatal((int) n)) {
		deliver(session);       /* what came whole, as far as it is taken at once */
		if (session->client_closed || session->broken)
			end_by_client(session); /* also in the middle of a record */
		else
			end_broken(session, (int) n);
		return false;
	}
	return session->worker->received_at > before && transport_has_received(session);
}

/* Decrypts all that was received, for which there is room. */
static void decrypt(struct session *session)
{
	struct worker *w = session->worker;
	bool more = true;

	if (!session->in)
		session->in = worker_take_buffer(w);
	if (!session->in) {
		session_end(session, REASON_LIMIT, "there is no memory to relay for it");
		return;
	}
	while (more) {
		struct buffer *b = session->in;
		size_t before = w->received_at;
		ssize_t n = gnutls_record_recv(session->tls, b->bytes + b->end,
		                               BUFFER_SIZE - b->end);

		if (n > 0)
			b->end += (size_t) n;
		else
			more = take_oddity(session, n, before);
		more = more && !is_over(session) && b->end < BUFFER_SIZE;
	}
	if (transport_has_received(session) && !session->said_goodbye && !is_over(session))
		end_broken(session, GNUTLS_E_INTERNAL_ERROR);   /* never: it all fits */
}

void relay_take_received(struct session *session)
{
	decrypt(session);
	if (!is_over(session))
		deliver(session);
}

static void relay_in(struct session *session)
{
	if (session->in)
		deliver(session);
	if (session->in || session->in_shut || session->said_goodbye || !transport_fill(session))
		return;
	relay_take_received(session);
}

/* From the other program to the client */

static void flush(struct session *session)
{
	int r = transport_flush(session);

	if (r < 0 && r != -EAGAIN) {
		session->broken = -r;
		end_by_client(session);
	}
}

static int encrypt(struct session *session, size_t len)
{
	const uint8_t *at = session->worker->plain;

	while (len) {
		ssize_t n = gnutls_record_send(session->tls, at,
		                               len < RECORD_SIZE ? len : RECORD_SIZE);

		if (n < 0)
			return (int) n;
		at += n;
		len -= (size_t) n;
	}
	return 0;
}

/* End of file: says goodbye for the other program. */
static void say_goodbye(struct session *session)
{
	session->plain_closed = true;
	(void) gnutls_bye(session->tls, GNUTLS_SHUT_WR);
}

static void take_plain(struct session *session)
{
	ssize_t n = recv(session->plain.fd, session->worker->plain, WORKER_BATCH, MSG_DONTWAIT);
	int r = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		session->plain.readable = errno == EINTR;
		return;
	}
	if (n > 0 && n < (ssize_t) WORKER_BATCH && !session->plain.hung_up)
		session->plain.readable = false;
	if (n > 0)
		r = encrypt(session, (size_t) n);
	else
		say_goodbye(session);           /* or it is gone with bytes unread: the same */
	if (r < 0)
		end_broken(session, r);
}

static void relay_out(struct session *session)
{
	if (session->out)
		flush(session);
	if (is_over(session) || session->out || session->plain_closed || !session->plain.readable)
		return;
	take_plain(session);
	if (!is_over(session))
		flush(session);
}

/* Both directions have ended, or the other program has nothing to do with it any more. */
static bool is_done(const struct session *session)
{
	return session->plain_closed && !session->out && (session->in_shut || session->plain.gone);
}

/* Nobody counts it any more once the other program is gone, so its client's time is limited. */
static void limit_last_words(struct session *session)
{
	if (!session->plain.gone || session->deadline != UINT64_MAX)
		return;
	session->deadline = session->worker->now + session->worker->last_words;
	worker_expect(session->worker, session->deadline);
}

bool relay_turn(struct session *session)
{
	relay_out(session);
	if (!is_over(session))
		relay_in(session);
	if (is_over(session))
		return false;
	if (is_done(session)) {
		session_end(session, REASON_DISCONNECT, "the session is over");
		return false;
	}
	limit_last_words(session);
	return (session->out ? session->client.writable :
	        session->plain.readable && !session->plain_closed) ||
	       (session->in ? session->plain.writable :
	        session->client.readable && !session->said_goodbye && !session->in_shut);
}
