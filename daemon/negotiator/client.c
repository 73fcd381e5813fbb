/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One client: its steps, its bytes, its end. */
#include "negotiator/client.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "negotiator/trace.h"
#include "wire/names.h"

#define STEPS_PER_WAKEUP 64u            /* then the others have their turn */
#define RECEIVE_MAX (256u << 10)        /* bytes in one system call */

static enum client_progress client_left(struct client *client)
{
	return client_end(client, LOG_DEBUG, REASON_DISCONNECT, "left during the handshake");
}

/* Receives up to `want` bytes, never more.  0 when `*ret_len` bytes came. */
static int receive(struct client *client, void *at, size_t want, size_t *ret_len)
{
	ssize_t len;

	do
		len = recv(client->fd, at, want < RECEIVE_MAX ? want : RECEIVE_MAX, 0);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		return -errno;
	if (len == 0)
		return -ECONNRESET;
	*ret_len = (size_t) len;
	return 0;
}

static enum client_progress no_input(struct client *client, int r)
{
	return r == -EAGAIN ? CLIENT_NEEDS_INPUT : client_left(client);
}

/* CLIENT_GOES_ON when the `want` bytes of `head` are complete. */
static enum client_progress receive_head(struct client *client, size_t want)
{
	size_t len = 0;
	int r;

	while (client->head_len < want) {
		r = receive(client, client->head + client->head_len, want - client->head_len, &len);
		if (r < 0)
			return no_input(client, r);
		client->head_len += len;
	}
	client->head_len = 0;
	return CLIENT_GOES_ON;
}

static enum client_progress step_flags(struct client *client)
{
	enum client_progress p = receive_head(client, NBD_CLIENT_FLAGS_SIZE);

	if (p != CLIENT_GOES_ON)
		return p;
	if (!decode_client_flags(bytes_over(client->head, NBD_CLIENT_FLAGS_SIZE),
	                         &client->negotiation.flags))
		return client_end(client, LOG_NOTICE, REASON_PROTOCOL,
		                  "unknown client flags %02x%02x%02x%02x: closing",
		                  client->head[0], client->head[1], client->head[2],
		                  client->head[3]);
	client->step = STEP_HEADER;
	return CLIENT_GOES_ON;
}

/* CLIENT_GOES_ON while the handshake is within its limits. */
static enum client_progress count_option(struct client *client, const struct option_header *h)
{
	if (++client->n_options > HANDSHAKE_MAX_OPTIONS)
		return client_end(client, LOG_NOTICE, REASON_LIMIT,
		                  "more than %u options in one handshake: closing",
		                  HANDSHAKE_MAX_OPTIONS);
	client->n_bytes += h->length;
	if (client->n_bytes > HANDSHAKE_MAX_BYTES)
		return client_end(client, LOG_NOTICE, REASON_LIMIT,
		                  "more than %u bytes of options in one handshake: closing",
		                  HANDSHAKE_MAX_BYTES);
	return CLIENT_GOES_ON;
}

/* The files may have been read again since the last option. */
static void renew_catalogue(struct client *client)
{
	struct negotiation *n = &client->negotiation;
	struct catalogue *newest = client->server->catalogue;

	if (client->catalogue == newest)
		return;
	if (n->chosen.export)
		n->chosen.export = catalogue_find_label(newest, n->chosen.export->label);
	if (!n->chosen.export)
		n->chosen.n = 0;
	n->now = (struct progress) { 0 };
	n->catalogue = catalogue_ref(newest);
	catalogue_unref(client->catalogue);
	client->catalogue = newest;
}

static enum client_progress begin_option(struct client *client, struct option_header header)
{
	struct negotiation *n = &client->negotiation;

	client->has_passed_stale = client->has_passed_gone = false;
	renew_catalogue(client);
	trace_option(client, &header);
	switch (option_begin(n, header)) {
	case PAYLOAD_KEEP:
		client->step = header.length ? STEP_PAYLOAD : STEP_DISPATCH;
		break;
	case PAYLOAD_SKIP:
		client->skip_left = header.length;
		client->step = header.length ? STEP_SKIP : STEP_DISPATCH;
		break;
	case PAYLOAD_CLOSE:
		return client_end(client, LOG_NOTICE, n->verdict.reason, "%s: closing",
		                  n->verdict.sentence);
	}
	return CLIENT_GOES_ON;
}

static enum client_progress step_header(struct client *client)
{
	enum client_progress p = receive_head(client, NBD_OPTION_HEADER_SIZE);
	struct option_header header;

	if (p != CLIENT_GOES_ON)
		return p;
	switch (decode_option_header(bytes_over(client->head, NBD_OPTION_HEADER_SIZE), &header)) {
	case OPTION_HEADER_OK:
		break;
	case OPTION_HEADER_BAD_MAGIC:
		return client_end(client, LOG_NOTICE, REASON_PROTOCOL,
		                  "an option without its magic number: closing");
	case OPTION_HEADER_TOO_LONG:
		return client_end(client, LOG_NOTICE, REASON_PROTOCOL,
		                  "an option of more than %u bytes: closing", NBD_MAX_OPTION);
	}
	p = count_option(client, &header);
	return p == CLIENT_GOES_ON ? begin_option(client, header) : p;
}

static enum client_progress step_payload(struct client *client)
{
	struct payload *p = &client->payload;
	size_t total = client->negotiation.header.length;
	size_t len = 0, want;
	int r;

	r = payload_make_room(p, &client->server->budget, total);
	if (r == -EAGAIN) {
		list_remove(&client->starved);
		list_append(&client->server->starved, &client->starved);
		return CLIENT_WAITS;
	}
	if (r < 0)
		return client_end(client, LOG_ERR, REASON_LIMIT,
		                  "no memory for an option of %zu bytes: closing", total);

	want = (total < p->size ? total : p->size) - p->len;
	r = receive(client, p->at + p->len, want, &len);
	if (r < 0)
		return no_input(client, r);
	p->len += len;
	if (p->len == total)
		client->step = STEP_DISPATCH;
	return CLIENT_GOES_ON;
}

static enum client_progress step_skip(struct client *client)
{
	static uint8_t unread[64 << 10];        /* written, never looked at */
	size_t want = client->skip_left < sizeof unread ? client->skip_left : sizeof unread;
	size_t len = 0;
	int r;

	r = receive(client, unread, want, &len);
	if (r < 0)
		return no_input(client, r);
	client->skip_left -= (uint32_t) len;
	if (!client->skip_left)
		client->step = STEP_DISPATCH;
	return CLIENT_GOES_ON;
}

void client_option_done(struct client *client)
{
	place_free(client->place);
	client->place = NULL;
	offer_unref(client->offer);
	client->offer = NULL;
	client->negotiation.now.offer = NULL;
	if (payload_clear(&client->payload, &client->server->budget))
		server_feed(client->server);
}

static enum client_progress leave(struct client *client)
{
	client->step = STEP_LEAVE;
	client_log_close(client);
	return CLIENT_GOES_ON;
}

static enum client_progress step_dispatch(struct client *client)
{
	struct negotiation *n = &client->negotiation;
	size_t start = n->out.len;
	enum next next = option_dispatch(n, payload_bytes(&client->payload));

	trace_replies(client, start);
	client_log_verdict(client);
	switch (next) {
	case NEXT_OPTION:
		client_option_done(client);
		client->step = STEP_HEADER;
		return CLIENT_GOES_ON;
	case NEXT_FLUSH:
		return CLIENT_NEEDS_OUTPUT;
	case NEXT_TLS:
		client->step = STEP_TLS;
		return CLIENT_GOES_ON;
	case NEXT_SECURE:
		client->step = STEP_SECURE;
		return CLIENT_GOES_ON;
	case NEXT_OFFER:
		client->step = STEP_OFFER;
		return CLIENT_GOES_ON;
	case NEXT_RESERVE:
		client->step = STEP_RESERVE;
		return CLIENT_GOES_ON;
	case NEXT_HANDOFF:
		client->step = STEP_HANDOFF;
		return CLIENT_GOES_ON;
	case NEXT_CLOSE:
		break;
	}
	return leave(client);
}

static enum client_progress step_wait(struct client *client)
{
	(void) client;
	return CLIENT_WAITS;
}

/* Everything has been sent, for client_advance() flushes before each step. */
static enum client_progress step_leave(struct client *client)
{
	log_about(LOG_DEBUG, &(struct subject) { .client = client->peer }, "handshake ended");
	return CLIENT_ENDS;
}

static enum client_progress (*const steps[N_STEPS])(struct client *client) = {
	[STEP_FLAGS] = step_flags,
	[STEP_HEADER] = step_header,
	[STEP_PAYLOAD] = step_payload,
	[STEP_SKIP] = step_skip,
	[STEP_DISPATCH] = step_dispatch,
	[STEP_TLS] = client_step_tls,
	[STEP_SECURE] = client_step_secure,
	[STEP_OFFER] = client_step_offer,
	[STEP_RESERVE] = client_step_reserve,
	[STEP_HANDOFF] = client_step_handoff,
	[STEP_WAIT] = step_wait,
	[STEP_LEAVE] = step_leave,
};

/* CLIENT_GOES_ON when the outbox is empty. */
static enum client_progress flush(struct client *client)
{
	struct emit *out = &client->negotiation.out;

	while (client->sent < out->len) {
		ssize_t len = send(client->fd, out->start + client->sent, out->len - client->sent,
		                   MSG_NOSIGNAL);

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0 && errno == EAGAIN)
			return CLIENT_NEEDS_OUTPUT;
		if (len < 0)
			return client_left(client);
		client->sent += (size_t) len;
	}
	client->sent = 0;
	*out = emit_into(client->outbox, sizeof client->outbox);
	return CLIENT_GOES_ON;
}

void client_advance(struct client *client)
{
	static const uint32_t interest[] = {
		[CLIENT_GOES_ON] = EPOLLOUT,            /* its turn is over; soon again */
		[CLIENT_NEEDS_INPUT] = EPOLLIN,
		[CLIENT_NEEDS_OUTPUT] = EPOLLOUT,
		[CLIENT_WAITS] = 0,                     /* a hang-up is told nevertheless */
	};
	enum client_progress p = CLIENT_GOES_ON;

	for (unsigned i = 0; i < STEPS_PER_WAKEUP && p == CLIENT_GOES_ON; i++) {
		p = flush(client);
		if (p == CLIENT_GOES_ON)
			p = steps[client->step](client);
	}
	if (p == CLIENT_ENDS ||
	    (client->io && sd_event_source_set_io_events(client->io, interest[p]) < 0))
		client_free(client);
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct client *client = userdata;
	bool waits = client->step == STEP_WAIT || !list_empty(&client->starved);

	(void) source;
	(void) fd;
	/* Reading and writing find out by themselves, and take first what is still there. */
	if (events & (EPOLLHUP | EPOLLERR) && waits) {
		(void) client_left(client);
		client_free(client);
		return 0;
	}
	client_advance(client);
	return 0;
}

int client_watch(struct client *client)
{
	return sd_event_add_io(client->server->event, &client->io, client->fd, 0, on_socket,
	                       client);
}

/* But for its flags, which no option can set again. */
void client_forget_choices(struct client *client)
{
	struct negotiation *n = &client->negotiation;

	forget_contexts(n);
	*n = (struct negotiation) {
		.catalogue = client->catalogue,
		.who = n->who,
		.flags = n->flags,
		.out = emit_into(client->outbox, sizeof client->outbox),
	};
}

void client_evict(struct client *client, int level)
{
	(void) client_end(client, level, REASON_LIMIT,
	                  "%u clients are in the handshake, which is the limit, and its source "
	                  "has the most of them: closing", client->server->n_clients);
	client_free(client);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct client *client = userdata;

	(void) source;
	(void) usec;
	(void) client_end(client, LOG_NOTICE, REASON_DEADLINE,
	                  "the handshake took longer than %u s: closing",
	                  client->server->settings.handshake_timeout);
	client_free(client);
	return 0;
}

/* Everything but its event sources. */
static void init(struct client *client, struct server *server, int fd, struct source *source)
{
	client->server = server;
	client->fd = fd;
	format_peer(fd, client->peer, sizeof client->peer);
	client->source = source;
	list_init(&client->of_source);
	list_append(&source->handshakes, &client->of_source);
	source->n_handshakes++;
	list_init(&client->starved);
	list_init(&client->node);
	list_append(&server->clients, &client->node);
	server->n_clients++;
	export_wait_init(&client->wait, client_wait_done);
	tls_wait_init(&client->tls_wait, client_tls_done);
	client->catalogue = catalogue_ref(server->catalogue);
	client->negotiation = (struct negotiation) {
		.catalogue = client->catalogue,
		.out = emit_into(client->outbox, sizeof client->outbox),
	};
	peer_of(fd, &client->negotiation.who);
	emit_greeting(&client->negotiation.out);
}

void client_start(struct server *server, int fd, struct source *source)
{
	struct client *client = calloc(1, sizeof *client);
	int r;

	if (!client) {
		close_fd(&fd);
		sources_put(&server->sources, source);
		log_error("no memory for a new client: closing it");
		return;
	}
	init(client, server, fd, source);
	r = client_watch(client);
	if (r >= 0)
		r = sd_event_add_time_relative(server->event, &client->deadline, CLOCK_MONOTONIC,
		                               server_handshake_usec(server), 0, on_deadline, client);
	if (r < 0) {
		(void) client_end(client, LOG_ERR, REASON_NONE, "cannot watch its socket: %s",
		                  strerror(-r));
		client_free(client);
		return;
	}
	client_advance(client);
}

void client_shut_down(struct client *client)
{
	struct negotiation *n = &client->negotiation;

	if (client->step == STEP_WAIT && !n->now.is_granted && !client->is_securing) {
		n->now.refusal = (struct refusal) { .reason = REASON_SHUTDOWN,
		                                    .sentence = "the server is shutting down" };
		(void) option_dispatch(n, payload_bytes(&client->payload));
		client_log_verdict(client);
		(void) flush(client);
	}
	client_free(client);
}

void client_free(struct client *client)
{
	if (!client)
		return;
	export_wait_cancel(&client->wait);
	tls_wait_cancel(&client->tls_wait);
	client_abandon(client);
	client_option_done(client);
	forget_contexts(&client->negotiation);
	list_remove(&client->starved);
	list_remove(&client->node);
	list_remove(&client->of_source);
	client->source->n_handshakes--;
	sources_put(&client->server->sources, client->source);
	catalogue_unref(client->catalogue);
	free(client->secure);
	client->server->n_clients--;
	client->deadline = sd_event_source_disable_unref(client->deadline);
	client->io = sd_event_source_disable_unref(client->io);
	close_fd(&client->fd);
	free(client);
}
