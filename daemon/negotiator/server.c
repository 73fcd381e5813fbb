/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepts clients, and never spins: without descriptors or memory it rests for a moment.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "negotiator/client-socket.h"
#include "negotiator/client.h"
#include "negotiator/export-link.h"
#include "negotiator/server.h"

#define ACCEPTED_PER_WAKEUP 64u
#define REST_USEC (USEC_PER_SEC / 10)
#define LOG_EVERY_USEC USEC_PER_SEC

static void set_accepting(struct server *server, int enabled)
{
	for (unsigned i = 0; i < server->n_listeners; i++)
		(void) sd_event_source_set_enabled(server->accepting[i], enabled);
}

static void rest(struct server *server, int code)
{
	uint64_t now = 0;

	(void) sd_event_now(server->event, CLOCK_MONOTONIC, &now);
	if (now >= server->next_log) {
		log_event(EVENT_ACCEPT_FAILED, NULL, "cannot accept clients for now: %s",
		          strerror(code));
		server->next_log = now + LOG_EVERY_USEC;
	}
	set_accepting(server, SD_EVENT_OFF);
	(void) sd_event_source_set_time_relative(server->resume, REST_USEC);
	(void) sd_event_source_set_enabled(server->resume, SD_EVENT_ONESHOT);
}

static int on_resume(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void) source;
	(void) usec;
	set_accepting(userdata, SD_EVENT_ON);
	return 0;
}

/* True while there may be more clients. */
static bool accept_one(struct server *server, int listener)
{
	AUTO_FD fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		server_admit(server, take_fd(&fd));
		return true;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		rest(server, errno);
		return false;
	default:
		/* accept(2): errors of a connection that is gone again already. */
		return errno != EINVAL && errno != EBADF && errno != ENOTSOCK;
	}
}

static int on_listener(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void) source;
	(void) events;
	for (unsigned i = 0; i < ACCEPTED_PER_WAKEUP; i++)
		if (!accept_one(userdata, fd))
			break;
	return 0;
}

static int on_feed(sd_event_source *source, void *userdata)
{
	struct server *server = userdata;
	struct list hungry;

	(void) source;
	list_move_all(&server->starved, &hungry);
	while (!list_empty(&hungry)) {
		struct client *client = container_of(hungry.next, struct client, starved);

		list_remove(&client->starved);
		client_advance(client);
	}
	return 0;
}

void server_feed(struct server *server)
{
	if (!list_empty(&server->starved))
		(void) sd_event_source_set_enabled(server->feed, SD_EVENT_ONESHOT);
}

int server_open(struct server *server, struct failure *why)
{
	int r;

	server->started = real_time_us();
	list_init(&server->clients);
	list_init(&server->starved);
	sources_init(&server->sources);
	server->budget = (struct payload_budget) { .limit = PAYLOAD_BUDGET };
	server->big_buffers = client_socket_big_buffers();

	r = sd_event_add_defer(server->event, &server->feed, on_feed, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->feed, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(server->event, &server->resume, CLOCK_MONOTONIC,
		                               0, 0, on_resume, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->resume, SD_EVENT_OFF);
	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}

int server_listen(struct server *server, struct failure *why)
{
	for (unsigned i = 0; i < server->n_listeners; i++) {
		int r = sd_event_add_io(server->event, &server->accepting[i],
		                        server->listeners[i], EPOLLIN, on_listener, server);

		if (r < 0)
			return fail(why, -r, "cannot watch listening socket %d",
			            server->listeners[i]);
	}
	return 0;
}

void server_close(struct server *server)
{
	for (unsigned i = 0; i < server->n_listeners; i++) {
		server->accepting[i] = sd_event_source_disable_unref(server->accepting[i]);
		close_fd(&server->listeners[i]);
	}
	server->n_listeners = 0;
	while (!list_empty(&server->clients))
		client_shut_down(container_of(server->clients.next, struct client, node));
	tls_link_clear(&server->tls);
	server->feed = sd_event_source_disable_unref(server->feed);
	server->resume = sd_event_source_disable_unref(server->resume);
	refusal_log_end(&server->refusals);
}
