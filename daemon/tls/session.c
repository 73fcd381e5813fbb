/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a session begins, and how it ends: whatever the reason, the client is told what TLS has to
 * say about it, and gets a moment to read it.
 */
#include "tls/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define LINGER_MSEC 5000u

static int prepare_as_server(struct session *s)
{
	static const gnutls_certificate_request_t requests[N_TLS_CERTIFICATES] = {
		[TLS_CERTIFICATE_OFF] = GNUTLS_CERT_IGNORE,
		[TLS_CERTIFICATE_OPTIONAL] = GNUTLS_CERT_REQUEST,
		[TLS_CERTIFICATE_REQUIRED] = GNUTLS_CERT_REQUIRE,
	};
	struct credentials *c = s->about.credentials;
	int r = gnutls_init(&s->tls, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);

	if (r >= 0)
		r = gnutls_priority_set(s->tls, c->priority);
	if (r >= 0 && c->can & TLS_CAN_X509)
		r = gnutls_credentials_set(s->tls, GNUTLS_CRD_CERTIFICATE, c->x509);
	if (r >= 0 && c->can & TLS_CAN_PSK)
		r = gnutls_credentials_set(s->tls, GNUTLS_CRD_PSK, c->psk);
	if (r < 0)
		return r;
	gnutls_session_set_ptr(s->tls, &s->about);
	if (c->can & TLS_CAN_VERIFY || s->required == TLS_CERTIFICATE_REQUIRED)
		gnutls_certificate_server_set_request(s->tls, requests[s->required]);
	gnutls_session_set_verify_function(s->tls, certificate_verify);
	transport_attach(s);
	return 0;
}

int session_new(struct credentials *credentials, const struct tls_start *start, struct span host,
                int fd, struct session **ret, struct failure *why)
{
	struct session *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return fail(why, ENOMEM, "cannot start a session");
	s->client = s->plain = (struct end) { .session = s, .fd = -1 };
	s->request = start->request;
	s->required = start->certificate;
	s->patience = start->deadline;
	s->deadline = UINT64_MAX;
	memcpy(s->peer, start->peer.at, start->peer.len);
	if (host.len)
		memcpy(s->host, host.at, host.len);
	s->about.credentials = credentials_ref(credentials);
	r = *s->host ? prepare_as_client(s) : prepare_as_server(s);
	if (r < 0) {
		session_free(s);
		return fail_plain(why, EIO, "cannot start a session: %s", gnutls_strerror(r));
	}
	s->client.fd = fd;
	*ret = s;
	return 0;
}

void session_begin(struct session *session, struct worker *worker)
{
	int fd = session->client.fd, r;

	session->worker = worker;
	session->deadline = worker->now + session->patience;
	worker_expect(worker, session->deadline);
	r = end_watch(&session->client, session, fd);
	if (r < 0) {
		close_fd(&fd);
		session_fail(session, REASON_TLS_UNAVAILABLE, "its socket cannot be watched: %s",
		             strerror(-r));
	}
}

void session_free(struct session *session)
{
	if (session->worker) {
		session->worker->n_lingering -= session->lingers;
		worker_give_back(session->worker, &session->out);
		worker_give_back(session->worker, &session->in);
	}
	end_close(&session->client);
	end_close(&session->plain);
	if (session->tls)
		gnutls_deinit(session->tls);
	credentials_unref(session->about.credentials);
	free(session);
}

/* Says the last words, and waits for the client to have read them: a socket that is closed with
 * bytes unread takes those on their way along.  Not for so many that they take the room of others. */
static void begin_linger(struct session *session)
{
	struct worker *worker = session->worker;

	end_close(&session->plain);
	worker_give_back(worker, &session->in);
	session->state = SESSION_OVER;
	if (session->broken || session->client.fd < 0)
		return;
	if (worker->n_lingering >= WORKER_MAX_LINGERING) {
		(void) transport_flush(session);
		return;
	}
	session->state = SESSION_LINGER;
	session->deadline = worker->now + LINGER_MSEC;
	worker_expect(worker, session->deadline);
	session->lingers = true;
	worker->n_lingering++;
}

static void tell_end(struct session *session, enum news_kind kind, enum reason reason,
                     const char *sentence)
{
	struct tls_record record = { .type = TLS_FAILED };
	struct news *news;

	if (kind == NEWS_FAILED)
		record.failed = (struct tls_failed) {
			.request = session->request, .reason = reason,
			.sentence = span_of(sentence),
		};
	else
		record = (struct tls_record) { .type = TLS_ENDED, .ended = {
			.session = session->number, .reason = reason } };
	news = news_new(session, kind, &record);
	if (!news)
		return;
	news->reason = reason;
	snprintf(news->sentence, sizeof news->sentence, "%s", sentence);
	mailbox_post(session->worker->news, &news->letter);
}

void session_fail(struct session *session, enum reason reason, const char *fmt, ...)
{
	char sentence[TLS_SENTENCE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, args);
	va_end(args);
	tell_end(session, NEWS_FAILED, reason, sentence);
	begin_linger(session);
}

void session_end(struct session *session, enum reason reason, const char *fmt, ...)
{
	char sentence[TLS_SENTENCE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, args);
	va_end(args);
	tell_end(session, NEWS_ENDED, reason, sentence);
	begin_linger(session);
}

void session_cancel(struct session *session)
{
	tell_end(session, NEWS_FAILED, REASON_DISCONNECT, "given up");
	session->state = SESSION_OVER;
}

void session_expired(struct session *session)
{
	if (session->state == SESSION_HANDSHAKE)
		session_fail(session, REASON_TLS_TIMEOUT,
		             "the TLS handshake took longer than %u ms", session->patience);
	else if (session->state == SESSION_RELAY)
		session_end(session, REASON_TLS_TIMEOUT, "it did not take what was said last "
		            "within %u ms", session->worker->last_words);
	session->state = SESSION_OVER;
}

/* What still comes is thrown away, until the client has closed. */
static bool linger_turn(struct session *session)
{
	int r = transport_flush(session);

	if (r < 0 && r != -EAGAIN)
		session->broken = -r;
	if (r == 0)
		(void) shutdown(session->client.fd, SHUT_WR);
	for (unsigned i = 0; i < 4 && transport_fill(session); i++)
		session->worker->received_at = session->worker->received_end;
	if (session->broken || session->client_closed)
		session->state = SESSION_OVER;
	return session->state == SESSION_LINGER && session->client.readable;
}

bool session_turn(struct session *session)
{
	struct worker *w = session->worker;
	bool more = false;

	if (session->state == SESSION_HANDSHAKE)
		more = handshake_turn(session);
	else if (session->state == SESSION_RELAY)
		more = relay_turn(session);
	w->received_at = w->received_end;       /* left over only where nobody wants it */
	if (session->state == SESSION_LINGER)
		more = linger_turn(session);
	return more;
}
