/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A negotiator's connection.  It is as hostile as its clients: a record that is wrong ends
 * the link and the handshakes that it asked for, not the sessions.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fdpass.h"
#include "base/log.h"
#include "tls/server.h"

#define RECORDS_PER_WAKEUP 64u
#define MOST_UNSENT 8192u       /* records that a negotiator has not read */

static int on_link(sd_event_source *source, int fd, uint32_t events, void *userdata);

static bool is_trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

int link_new(struct server *server, int fd, struct failure *why)
{
	struct link *link = calloc(1, sizeof *link);
	int r;

	if (!link)
		return fail(why, ENOMEM, "cannot serve a negotiator");
	link->server = server;
	link->fd = -1;
	link->number = ++server->last_link;
	link->may_connect = is_trusted(fd);
	TAILQ_INIT(&link->handshakes);
	STAILQ_INIT(&link->unsent);
	r = sd_event_add_io(server->event, &link->source, fd, EPOLLIN, on_link, link);
	if (r < 0) {
		free(link);
		return fail(why, -r, "cannot serve a negotiator");
	}
	link->fd = fd;
	TAILQ_INSERT_TAIL(&server->links, link, next);
	server->n_links++;
	link_say_hello(link);
	return 0;
}

void news_free(struct news *news)
{
	close_fd(&news->fd);
	free(news);
}

static void cancel(struct handshake *handshake)
{
	struct order *order;

	if (handshake->cancelled)
		return;
	order = calloc(1, sizeof *order);
	handshake->cancelled = true;
	if (!order)
		return;                         /* its deadline ends it */
	*order = (struct order) { .kind = ORDER_CANCEL, .number = handshake->session };
	worker_order(handshake->worker, order);
}

void link_free(struct link *link)
{
	struct server *server = link->server;
	struct handshake *h;

	while ((h = TAILQ_FIRST(&link->handshakes))) {
		TAILQ_REMOVE(&link->handshakes, h, next);
		cancel(h);
		free(h);
	}
	while (!STAILQ_EMPTY(&link->unsent)) {
		struct letter *first = STAILQ_FIRST(&link->unsent);

		STAILQ_REMOVE_HEAD(&link->unsent, next);
		news_free(container_of(first, struct news, letter));
	}
	TAILQ_REMOVE(&server->links, link, next);
	server->n_links--;
	sd_event_source_disable_unref(link->source);
	close_fd(&link->fd);
	free(link);
}

/* What cannot be sent now waits; a link that is broken is found so when it is read. */
static void flush(struct link *link)
{
	while (!STAILQ_EMPTY(&link->unsent)) {
		struct letter *first = STAILQ_FIRST(&link->unsent);
		struct news *news = container_of(first, struct news, letter);
		int r = send_record(link->fd, news->record, news->len, news->fd);

		if (r == -EAGAIN || r == -ENOBUFS || r == -ETOOMANYREFS)
			break;
		STAILQ_REMOVE_HEAD(&link->unsent, next);
		link->n_unsent--;
		news_free(news);
	}
	(void) sd_event_source_set_io_events(link->source,
	                                     STAILQ_EMPTY(&link->unsent) ? EPOLLIN :
	                                     EPOLLIN | EPOLLOUT);
}

void link_tell(struct link *link, struct news *news)
{
	STAILQ_INSERT_TAIL(&link->unsent, &news->letter, next);
	link->n_unsent++;
	flush(link);
}

void link_say_hello(struct link *link)
{
	const struct credentials *c = link->server->credentials;
	const struct tls_record record = { .type = TLS_HELLO, .hello = {
		.can = c->can,
		.subject = span_of(c->subject ? c->subject : ""),
		.not_after = c->not_after > 0 ? (uint64_t) c->not_after : 0,
	} };
	uint8_t buffer[TLS_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct news *news;

	emit_tls_record(&out, &record);
	news = malloc(sizeof *news + out.len);
	if (!news)
		return;
	*news = (struct news) { .fd = -1, .len = out.len };
	memcpy(news->record, buffer, out.len);
	link_tell(link, news);
}

static const char *take_cancel(struct link *link, uint32_t request)
{
	struct handshake *h;

	TAILQ_FOREACH(h, &link->handshakes, next)
		if (h->request == request)
			cancel(h);
	return NULL;
}

/* With a negotiator's word alone nobody gets at what our certificate opens elsewhere. */
static const char *take_connect(struct link *link, const struct tls_connect *connect, int fd)
{
	const struct tls_start start = { .request = connect->request,
	                                 .deadline = connect->deadline, .peer = connect->peer };

	if (!link->may_connect) {
		close_fd(&fd);
		return "only root may connect to servers";
	}
	return start_session(link, &start, connect->host, fd);
}

/* NULL, or how it breaks the protocol.  Takes `fd` over. */
static const char *take_record(struct link *link, struct bytes in, int fd, unsigned n_fds)
{
	AUTO_FD client = fd;
	struct tls_record record;
	const char *fault = decode_tls_record(in, &record);

	if (fault)
		return fault;
	if (!tls_record_is_negotiators(record.type))
		return "it is a record that nbd-tls sends";
	if (n_fds != tls_record_carries_fd(record.type))
		return "the number of descriptors is wrong";
	if (record.type == TLS_CANCEL)
		return take_cancel(link, record.cancel.request);
	if (record.type == TLS_CONNECT)
		return take_connect(link, &record.connect, take_fd(&client));
	return start_session(link, &record.start, (struct span) { 0 }, take_fd(&client));
}

/* True while there may be more. */
static bool read_one(struct link *link)
{
	uint8_t buffer[TLS_RECORD_MAX];
	unsigned n_fds = 0;
	int fd = -1;
	ssize_t n = receive_record(link->fd, buffer, sizeof buffer, &fd, &n_fds);
	const char *fault;

	if (n == -EAGAIN)
		return false;
	if (n <= 0 && n != -EMSGSIZE) {
		log_debug("a negotiator has ended");
		link_free(link);
		return false;
	}
	fault = n < 0 ? "a record is too long, or has too many descriptors" :
		take_record(link, bytes_over(buffer, (size_t) n), fd, n_fds);
	if (!fault && link->n_unsent > MOST_UNSENT)
		fault = "it does not read what it is told";
	if (fault) {
		log_event(EVENT_CHANNEL_VIOLATION, NULL, "a negotiator breaks the protocol of the "
		          "channel, and is cut off: %s", fault);
		link_free(link);
	}
	return !fault;
}

static int on_link(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct link *link = userdata;

	(void) source;
	(void) fd;
	if (events & EPOLLOUT)
		flush(link);
	if (!(events & ~(uint32_t) EPOLLOUT))
		return 0;
	for (unsigned i = 0; i < RECORDS_PER_WAKEUP; i++)
		if (!read_one(link))
			break;
	return 0;
}
