/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "export/server.h"

#define USEC_PER_SEC 1000000ull
#define PEERS_MAX 64u                   /* that are not root's */
#define CALLS_MAX 64u
#define PATIENCE USEC_PER_SEC           /* with a loop that does not answer */

/* Calls that wait */

static void drop_call(struct control *control, struct control_call **at)
{
	struct control_call *call = *at;

	*at = call->next;
	control->n_calls--;
	sd_bus_message_unref(call->message);
	free(call);
}

/* Whoever has left meanwhile needs no answer. */
static void answer(struct control *control, struct control_call **at, const struct failure *why)
{
	struct control_call *call = *at;
	sd_bus_message *message = call->message;

	if (why)
		(void) sd_bus_reply_method_errorf(message, CONTROL_ERROR_FAILED, "%s", why->text);
	else if (call->what == WAITS_FOR_CLIENTS)
		(void) control_reply_clients(control->server, message);
	else
		(void) sd_bus_reply_method_return(message, NULL);
	drop_call(control, at);
}

static void answer_all(struct control *control, enum waits_for what, const struct failure *why)
{
	struct control_call **at = &control->calls;

	while (*at)
		if ((*at)->what == what)
			answer(control, at, why);
		else
			at = &(*at)->next;
}

/* A round that is under way began too early to count. */
static unsigned rounds_to_wait(struct server *server)
{
	return server->census.n_out ? 2 : 1;
}

static int on_patience(sd_event_source *source, uint64_t now, void *userdata);

static void ask(struct control *control)
{
	struct server *server = control->server;

	(void) census_ask(&server->census);
	if (!control->patience)
		(void) sd_event_add_time_relative(server->event, &control->patience, CLOCK_MONOTONIC,
		                                  PATIENCE, 0, on_patience, control);
}

int control_defer(struct control_peer *peer, sd_bus_message *message, enum waits_for what,
                  sd_bus_error *error)
{
	struct control *control = &peer->server->control;
	struct control_call *call;

	if (control->n_calls == CALLS_MAX)
		return sd_bus_error_setf(error, CONTROL_ERROR_FAILED, "too many calls are waiting");
	call = calloc(1, sizeof *call);
	if (!call)
		return -ENOMEM;
	*call = (struct control_call) { control->calls, sd_bus_message_ref(message), what,
	                                rounds_to_wait(peer->server) };
	control->calls = call;
	control->n_calls++;
	if (what == WAITS_FOR_CLIENTS)
		ask(control);
	return 1;
}

void control_tell_drained(struct control *control)
{
	const struct export *export = &control->server->export;
	struct failure why = { 0 };

	if (export->device_gone)
		(void) fail_plain(&why, ENODEV, "the device is gone");
	else if (export->last_flush_error)
		(void) fail(&why, export->last_flush_error, "drained, but flushing the device failed");
	answer_all(control, WAITS_FOR_DRAIN, why.code ? &why : NULL);
}

void control_tell_reloaded(struct control *control, const struct failure *why)
{
	answer_all(control, WAITS_FOR_RELOAD, why);
}

/* Peers */

static void drop_peer(struct control *control, struct control_peer **at)
{
	struct control_peer *peer = *at;
	struct control_call **call = &control->calls;

	while (*call)
		if (sd_bus_message_get_bus((*call)->message) == peer->bus)
			drop_call(control, call);
		else
			call = &(*call)->next;
	*at = peer->next;
	control->n_peers--;
	sd_bus_close_unref(peer->bus);
	free(peer);
}

static int on_disconnected(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct control_peer *peer = userdata;
	struct control *control = &peer->server->control;
	struct control_peer **at = &control->peers;

	(void) message;
	(void) error;
	while (*at != peer)
		at = &(*at)->next;
	drop_peer(control, at);
	return 0;
}

/* What a bus says to whoever arrives. */
static int on_hello(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	(void) userdata;
	(void) error;
	return sd_bus_reply_method_return(message, "s", ":1.1");
}

static const sd_bus_vtable bus_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Hello", "", "s", on_hello, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

/* Figures are new when it asks for them: it is listened to after a census. */
static void listen_to(struct control_peer *peer)
{
	if (sd_bus_start(peer->bus) < 0 ||
	    sd_bus_attach_event(peer->bus, peer->server->event, SD_EVENT_PRIORITY_NORMAL) < 0)
		log_warning("a connection to the control socket cannot be served");
}

/* The descriptor is the bus's as soon as it has one, and else closed. */
static int set_up(struct control_peer *peer, int fd)
{
	sd_id128_t id;

	if (sd_bus_new(&peer->bus) < 0 || sd_bus_set_fd(peer->bus, fd, fd) < 0) {
		(void) close(fd);
		return -EIO;
	}
	if (sd_id128_randomize(&id) < 0 || sd_bus_set_server(peer->bus, true, id) < 0 ||
	    sd_bus_set_sender(peer->bus, CONTROL_INTERFACE) < 0 ||
	    sd_bus_match_signal(peer->bus, NULL, NULL, "/org/freedesktop/DBus/Local",
	                        "org.freedesktop.DBus.Local", "Disconnected", on_disconnected,
	                        peer) < 0 ||
	    sd_bus_add_object_vtable(peer->bus, NULL, "/org/freedesktop/DBus",
	                             "org.freedesktop.DBus", bus_vtable, peer) < 0 ||
	    sd_bus_add_object_vtable(peer->bus, NULL, CONTROL_PATH, CONTROL_INTERFACE,
	                             control_vtable, peer) < 0)
		return -EIO;
	return 0;
}

static void welcome(struct control *control, int *fd)
{
	struct control_peer *peer = calloc(1, sizeof *peer);
	struct ucred who;
	socklen_t len = sizeof who;

	if (!peer || getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
	    (who.uid != 0 && control->n_peers >= PEERS_MAX)) {
		free(peer);
		return;
	}
	*peer = (struct control_peer) {
		.next = control->peers, .server = control->server, .uid = who.uid, .pid = who.pid,
		.rounds = rounds_to_wait(control->server),
	};
	control->peers = peer;
	control->n_peers++;
	if (set_up(peer, take_fd(fd)) < 0)
		drop_peer(control, &control->peers);
	else
		ask(control);
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	AUTO_FD client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void) events;
	if (client >= 0)
		welcome(userdata, &client);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
		(void) sd_event_source_set_ratelimit(source, USEC_PER_SEC, 10);
	return 0;
}

/* The census */

static void count_rounds(struct control *control, bool enough)
{
	struct control_call **at = &control->calls;

	for (struct control_peer *peer = control->peers; peer; peer = peer->next)
		if (peer->rounds && (--peer->rounds == 0 || enough)) {
			peer->rounds = 0;
			listen_to(peer);
		}
	while (*at)
		if ((*at)->what == WAITS_FOR_CLIENTS && (--(*at)->rounds == 0 || enough))
			answer(control, at, NULL);
		else
			at = &(*at)->next;
}

static bool somebody_waits(const struct control *control)
{
	for (const struct control_peer *peer = control->peers; peer; peer = peer->next)
		if (peer->rounds)
			return true;
	for (const struct control_call *call = control->calls; call; call = call->next)
		if (call->what == WAITS_FOR_CLIENTS)
			return true;
	return false;
}

void control_tell_round(struct control *control)
{
	count_rounds(control, false);
	if (somebody_waits(control))
		(void) census_ask(&control->server->census);
	else
		control->patience = sd_event_source_disable_unref(control->patience);
}

static int on_patience(sd_event_source *source, uint64_t now, void *userdata)
{
	struct control *control = userdata;

	(void) source;
	(void) now;
	control->patience = sd_event_source_disable_unref(control->patience);
	count_rounds(control, true);
	return 0;
}

/* Start and end */

/* A socket that a process before us left is removed; anything else is not ours to remove. */
static int bind_at(int fd, const char *path, struct failure *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof address.sun_path)
		return fail_plain(why, ENAMETOOLONG, "the control socket's path is longer than %zu bytes: "
		                  "%.300s", sizeof address.sun_path - 1, path);
	(void) strcpy(address.sun_path, path);
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		(void) unlink(path);
	mask = umask(0117);
	r = bind(fd, (struct sockaddr *) &address, sizeof address);
	(void) umask(mask);
	if (r < 0 || listen(fd, SOMAXCONN) < 0)
		return fail(why, errno, "cannot listen at the control socket %s", path);
	return 0;
}

int control_start(struct control *control, struct server *server, const char *path,
                  struct failure *why)
{
	int r;

	*control = (struct control) { .server = server, .fd = -1 };
	if (!path)
		return 0;
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0)
		return fail(why, errno, "cannot make the control socket");
	r = bind_at(control->fd, path, why);
	if (r < 0)
		return r;
	control->path = strdup(path);
	if (!control->path)
		return fail(why, ENOMEM, "cannot make the control socket");
	r = sd_event_add_io(server->event, &control->source, control->fd, EPOLLIN, on_connection,
	                    control);
	return r < 0 ? fail(why, -r, "cannot watch the control socket") : 0;
}

void control_stop(struct control *control)
{
	if (!control->server)
		return;
	control->source = sd_event_source_disable_unref(control->source);
	control->patience = sd_event_source_disable_unref(control->patience);
	control_tell_drained(control);
	while (control->peers) {
		(void) sd_bus_flush(control->peers->bus);
		drop_peer(control, &control->peers);
	}
	if (control->path)
		(void) unlink(control->path);
	free_pointer(&control->path);
	close_fd(&control->fd);
}
