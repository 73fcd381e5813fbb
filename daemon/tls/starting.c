/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client is given to a worker, if it can be; otherwise its negotiator is told at once.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "tls/server.h"
#include "tls/session.h"

/* REASON_NONE when it can be a client's. */
static enum reason check_socket(int fd, const char **ret_cause)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;
	int type = 0, domain = 0;
	socklen_t type_len = sizeof type, domain_len = sizeof domain;

	*ret_cause = "what was passed is not a stream socket";
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 || type != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 ||
	    (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX && domain != AF_VSOCK))
		return REASON_PROTOCOL;
	*ret_cause = "it had left before the TLS handshake";
	return getpeername(fd, (struct sockaddr *) &peer, &len) < 0 ? REASON_PEER_GONE :
	                                                              REASON_NONE;
}

static void refuse(struct link *link, const struct tls_start *start, enum reason reason,
                   const char *cause)
{
	const struct tls_record record = { .type = TLS_FAILED, .failed = {
		.request = start->request, .reason = reason, .sentence = span_of(cause) } };
	struct session about = { .request = start->request };
	struct news *news = news_new(&about, NEWS_FAILED, &record);
	char peer[TLS_PEER_MAX + 1] = "";

	memcpy(peer, start->peer.at, start->peer.len);
	server_log_refusal(link->server, peer, reason, cause);
	if (news)
		link_tell(link, news);
}

static struct worker *idlest(struct server *server)
{
	struct worker *best = &server->workers[0];

	for (unsigned i = 1; i < server->n_workers; i++)
		if (server->workers[i].n_sessions < best->n_sessions)
			best = &server->workers[i];
	return best;
}

static bool is_known(const struct link *link, uint32_t request)
{
	const struct handshake *h;

	TAILQ_FOREACH(h, &link->handshakes, next)
		if (h->request == request && !h->cancelled)
			return true;
	return false;
}

/* Gives it away: order and handshake are there, nothing fails any more. */
static void give(struct link *link, struct session *session, struct order *order,
                 struct handshake *handshake)
{
	struct server *server = link->server;
	struct worker *worker = idlest(server);

	session->number = ++server->last_session;
	session->link = link->number;
	*handshake = (struct handshake) {
		.request = session->request, .session = session->number, .worker = worker,
	};
	TAILQ_INSERT_TAIL(&link->handshakes, handshake, next);
	server->figures.n_handshakes++;
	atomic_fetch_add(&worker->n_sessions, 1);
	*order = (struct order) { .kind = ORDER_START, .session = session };
	worker_order(worker, order);
}

static bool is_full(const struct server *server)
{
	unsigned n = 0;

	for (unsigned i = 0; i < server->n_workers; i++)
		n += server->workers[i].n_sessions;
	return n >= server->max_sessions;
}

const char *start_session(struct link *link, const struct tls_start *start, struct span host,
                          int fd)
{
	AUTO_FD client = fd;
	AUTO_FREE struct handshake *handshake = malloc(sizeof *handshake);
	AUTO_FREE struct order *order = malloc(sizeof *order);
	struct failure why = { 0 };
	struct session *session;
	const char *cause;
	enum reason reason;
	const int on = 1;

	if (is_known(link, start->request))
		return "a request is started twice";
	reason = check_socket(client, &cause);
	if (reason == REASON_NONE && host.len && !link->server->credentials->client) {
		reason = REASON_TLS_UNAVAILABLE;
		cause = "there is no ca-cert.pem to check the server with";
	}
	if (reason == REASON_NONE && is_full(link->server)) {
		reason = REASON_LIMIT;
		cause = "there are as many TLS sessions as there are descriptors for";
	}
	if (reason == REASON_NONE &&
	    (!handshake || !order ||
	     session_new(link->server->credentials, start, host, client, &session,
	                 &why) < 0)) {
		reason = REASON_TLS_UNAVAILABLE;
		cause = why.code ? why.text : "there is no memory";
	}
	if (reason != REASON_NONE) {
		refuse(link, start, reason, cause);
		return NULL;
	}
	(void) setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void) take_fd(&client);
	give(link, session, take_ptr(order), take_ptr(handshake));
	return NULL;
}
