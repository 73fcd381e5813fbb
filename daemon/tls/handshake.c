/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TLS handshake, as far as the bytes that came allow, and what came of it in words.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"
#include "tls/session.h"

#define PLAIN_BUFFER (1 << 20)  /* bytes; the kernel gives what its limits allow */

/* The client's end is told by its alert, if GnuTLS has one for the error. */
static void send_alert(struct session *session, int error)
{
	(void) gnutls_alert_send_appropriate(session->tls, error);
	(void) transport_flush(session);
}

/* Whose fault it is: who did not show who it is, or what does not fit together. */
static enum reason reason_of(const struct session *session, int error)
{
	switch (error) {
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return REASON_PEER_GONE;
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
	case GNUTLS_E_CERTIFICATE_ERROR:
		return REASON_TLS_UNTRUSTED;
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_ERROR_IN_FINISHED_PACKET:
		return *session->about.psk ? REASON_TLS_UNTRUSTED : REASON_TLS_HANDSHAKE_FAILED;
	default:
		return session->about.refused ? REASON_TLS_UNTRUSTED : REASON_TLS_HANDSHAKE_FAILED;
	}
}

/* The same for a server, of which we are the client. */
static void fail_with_server(struct session *session, int error)
{
	char sentence[TLS_SENTENCE_MAX];

	send_alert(session, error);
	if (server_is_refused(session, sentence, sizeof sentence))
		session_fail(session, REASON_TLS_UNTRUSTED, "%s", sentence);
	else if (reason_of(session, error) == REASON_PEER_GONE)
		session_fail(session, REASON_PEER_GONE, "the server closed the connection during the "
		             "TLS handshake");
	else if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		session_fail(session, REASON_TLS_HANDSHAKE_FAILED, "the server ended the TLS "
		             "handshake: %s", gnutls_alert_get_name(gnutls_alert_get(session->tls)));
	else
		session_fail(session, REASON_TLS_HANDSHAKE_FAILED, "the TLS handshake failed: %s",
		             gnutls_strerror(error));
}

static void fail_handshake(struct session *session, int error)
{
	const struct certificate_session *about = &session->about;
	enum reason reason = reason_of(session, error);

	send_alert(session, error);
	if (about->refused)
		session_fail(session, reason, "%s", about->sentence);
	else if (reason == REASON_TLS_UNTRUSTED && *about->psk)
		session_fail(session, reason, "%s pre-shared key of identity %s: %s",
		             about->psk_unknown ? "there is no" : "it does not have the",
		             about->psk, gnutls_strerror(error));
	else if (reason == REASON_TLS_UNTRUSTED)
		session_fail(session, reason, "it showed no certificate: %s",
		             gnutls_strerror(error));
	else if (reason == REASON_PEER_GONE)
		session_fail(session, reason, "it left during the TLS handshake");
	else if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		session_fail(session, reason, "the client ended the TLS handshake: %s",
		             gnutls_alert_get_name(gnutls_alert_get(session->tls)));
	else
		session_fail(session, reason, "the TLS handshake failed: %s",
		             gnutls_strerror(error));
}

/* For people: "TLS1.3, TLS_AES_256_GCM_SHA384, certificate CN=alice". */
static void describe(const struct tls_established *e, char *ret, size_t size)
{
	static const char *const methods[] = {
		[TLS_METHOD_ANONYMOUS] = "client without a certificate",
		[TLS_METHOD_X509] = "certificate ",
		[TLS_METHOD_PSK] = "pre-shared key ",
	};
	const struct tls_identity *id = &e->identity;
	char name[CERTIFICATE_SHOWN_SIZE];

	printable(id->method == TLS_METHOD_PSK ? id->psk :
	          id->subject.len || !id->fingerprint.len ? id->subject : id->fingerprint,
	          sizeof name - 4, name, sizeof name);
	snprintf(ret, size, "%.*s, %.*s, %s%s", (int) e->version.len, e->version.at,
	         (int) e->cipher.len, e->cipher.at, methods[id->method], name);
}

static const char *cipher_of(gnutls_session_t tls)
{
	const char *name = gnutls_ciphersuite_get(tls);

	return name ? name : "unknown";
}

/* Gives the plain end away.  NULL, or what kept it from that. */
static const char *tell_established(struct session *session, int fd)
{
	struct tls_record record = { .type = TLS_ESTABLISHED, .established = {
		.request = session->request, .session = session->number,
		.version = span_of(gnutls_protocol_get_name(
			gnutls_protocol_get_version(session->tls))),
		.cipher = span_of(cipher_of(session->tls)),
	} };
	AUTO_FREE struct identity_store *store = malloc(sizeof *store);
	const char *fault;
	struct news *news;

	if (!store)
		return "there is no memory";
	fault = certificate_identity(session->tls, store, &record.established.identity);
	if (fault)
		return fault;
	news = news_new(session, NEWS_ESTABLISHED, &record);
	if (!news)
		return "there is no memory";
	describe(&record.established, news->sentence, sizeof news->sentence);
	news->fd = fd;
	mailbox_post(session->worker->news, &news->letter);
	return NULL;
}

/* Makes the plain connection and its two ends. */
static int connect_plain(struct session *session, int *ret_fd)
{
	const int size = PLAIN_BUFFER;
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		(void) setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	r = end_watch(&session->plain, session, ends[0]);
	if (r < 0) {
		close_fd(&ends[0]);
		close_fd(&ends[1]);
		return r;
	}
	*ret_fd = ends[1];
	return 0;
}

static bool establish(struct session *session)
{
	const char *fault;
	AUTO_FD fd = -1;
	int r = connect_plain(session, &fd);

	if (r < 0) {
		session_fail(session, REASON_TLS_UNAVAILABLE, "cannot relay for it: %s",
		             strerror(-r));
		return false;
	}
	fault = tell_established(session, fd);
	if (fault) {
		session_fail(session, REASON_TLS_UNTRUSTED, "it cannot be told who it is: %s",
		             fault);
		return false;
	}
	(void) take_fd(&fd);
	session->state = SESSION_RELAY;
	session->deadline = UINT64_MAX;
	relay_take_received(session);
	return true;
}

bool handshake_turn(struct session *session)
{
	for (;;) {
		int r = gnutls_handshake(session->tls);
		int sent = transport_flush(session);

		if (sent < 0 && sent != -EAGAIN) {
			session_fail(session, REASON_PEER_GONE, "it left during the TLS handshake");
			return false;
		}
		if (r == GNUTLS_E_SUCCESS)
			return establish(session);
		if (r < 0 && gnutls_error_is_fatal(r)) {
			if (*session->host)
				fail_with_server(session, r);
			else
				fail_handshake(session, r);
			return false;
		}
		/* Another GNUTLS_E_AGAIN is due only when all that came has been taken. */
		if (!transport_has_received(session) && !transport_fill(session))
			return false;
	}
}
