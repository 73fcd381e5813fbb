/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepts clients, up to a limit, and never spins: without descriptors or memory it rests
 * for a moment.  Whoever is turned away is told of in the log, at most once a second.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "negotiator/client.h"
#include "negotiator/export-link.h"
#include "negotiator/server.h"

#define ACCEPTED_PER_WAKEUP 64u
#define REST_USEC (100u * 1000u)
#define LOG_EVERY_USEC (1000u * 1000u)
#define BUFFER_SIZE (4 << 20)           /* bytes of a socket's buffer */

static void set_option(int fd, int level, int name, int value)
{
	/* Without it things are slower or take longer to be noticed, but work. */
	(void) setsockopt(fd, level, name, &value, sizeof value);
}

/* Whether the kernel lets us have large buffers.  Where it does not, asking would only fix
 * TCP's buffers at a small size that would otherwise adapt. */
static bool big_buffers_allowed(void)
{
	AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int sent = 0, received = 0;
	socklen_t len = sizeof(int);

	if (fd < 0)
		return false;
	set_option(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_SIZE);
	set_option(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_SIZE);
	return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sent, &len) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &received, &len) == 0 &&
	       sent >= BUFFER_SIZE && received >= BUFFER_SIZE;
}

/*
 * A dead peer is noticed within 60 s, silent (20 s, then three probes 10 s apart) or with
 * data under way (45 s).  Large buffers were measured: 1 MiB reads over unix sockets gain a
 * fifth, 1 MiB writes over TCP three quarters.
 */
static void prepare_socket(const struct server *server, int fd)
{
	int domain = AF_UNSPEC;
	socklen_t len = sizeof domain;

	(void) getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (server->big_buffers || domain == AF_UNIX)
		set_option(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_SIZE);
	if (domain != AF_INET && domain != AF_INET6)
		return;
	if (server->big_buffers)
		set_option(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_SIZE);
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 20);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 45000);
}

static void tell_refused(struct server *server)
{
	uint64_t now = 0;

	server->refused_since++;
	(void) sd_event_now(server->event, CLOCK_MONOTONIC, &now);
	if (now < server->next_log)
		return;
	log_about(LOG_WARNING, &(struct subject) { .reason = reason_word(REASON_LIMIT) },
	          "%u clients are in the handshake, which is the limit: %" PRIu64
	          " more turned away", server->n_clients, server->refused_since);
	server->refused_since = 0;
	server->next_log = now + LOG_EVERY_USEC;
}

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
		log_warning("cannot accept clients for now: %s", strerror(code));
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
		if (server->n_clients >= server->max_clients) {
			tell_refused(server);
			return true;
		}
		prepare_socket(server, fd);
		client_start(server, take_fd(&fd));
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

	list_init(&server->clients);
	list_init(&server->starved);
	server->budget = (struct payload_budget) { .limit = PAYLOAD_BUDGET };
	server->big_buffers = big_buffers_allowed();

	r = sd_event_add_defer(server->event, &server->feed, on_feed, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->feed, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(server->event, &server->resume, CLOCK_MONOTONIC,
		                               0, 0, on_resume, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->resume, SD_EVENT_OFF);
	if (r < 0)
		return fail(why, -r, "cannot prepare the event loop");

	for (size_t i = 0; i < server->catalogue.n; i++) {
		struct catalogue_entry *entry = &server->catalogue.entries[i];

		entry->link = export_link_new(server->event, entry->label, entry->name,
		                              server->start_timeout, why);
		if (!entry->link)
			return -why->code;
	}
	return 0;
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
	server->feed = sd_event_source_disable_unref(server->feed);
	server->resume = sd_event_source_disable_unref(server->resume);
}
