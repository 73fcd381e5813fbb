/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A control socket: accepts, and has one sd-bus for each caller. */
#include "base/control-server.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/listen.h"
#include "base/log.h"
#include "base/text.h"

#define CALLERS_MAX 16u

struct caller {
	struct control_server *server;
	sd_bus *bus;                    /* NULL: the place is free */
};

struct control_server {
	const struct control_object *object;
	int fd;
	sd_event *event;
	sd_event_source *accepting;
	struct caller callers[CALLERS_MAX];
};

int control_listen(const char *path, int *ret_fd, struct failure *why)
{
	const struct group *group;
	AUTO_FD fd = -1;
	int r = listen_unix(path, SOCK_STREAM, &fd, why);

	if (r < 0)
		return r;
	/* Without the right to give it to the group it stays with us and root. */
	group = getgrnam(CONTROL_GROUP);
	if (group)
		(void) !chown(path, (uid_t) -1, group->gr_gid);
	if (chmod(path, 0660) < 0)
		return fail(why, errno, "cannot set the mode of %.300s", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Clients for a bus ask a bus daemon for their name first; we are none, but polite. */
static int on_hello(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	(void) userdata;
	(void) ret_error;
	return sd_bus_reply_method_return(m, "s", ":1.1");
}

static const sd_bus_vtable greeting[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Hello", "", "s", on_hello, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static void drop(struct caller *caller)
{
	caller->bus = sd_bus_close_unref(caller->bus);
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	(void) m;
	(void) ret_error;
	drop(userdata);
	return 0;
}

/* Takes `fd` in every case.  -errno. */
static int start_bus(struct caller *caller, int fd)
{
	const struct control_object *object = caller->server->object;
	sd_id128_t id;
	int r = sd_bus_new(&caller->bus);

	if (r >= 0)
		r = sd_bus_set_fd(caller->bus, fd, fd);
	if (r < 0) {
		close_fd(&fd);
		return r;
	}
	r = sd_id128_randomize(&id);
	if (r >= 0)
		r = sd_bus_set_server(caller->bus, 1, id);
	if (r >= 0)
		r = sd_bus_start(caller->bus);
	if (r >= 0)
		r = sd_bus_add_object_vtable(caller->bus, NULL, "/org/freedesktop/DBus",
		                             "org.freedesktop.DBus", greeting, NULL);
	if (r >= 0)
		r = sd_bus_add_object_vtable(caller->bus, NULL, object->path, object->interface,
		                             object->vtable, object->userdata);
	if (r >= 0)
		r = sd_bus_match_signal(caller->bus, NULL, NULL, "/org/freedesktop/DBus/Local",
		                        "org.freedesktop.DBus.Local", "Disconnected",
		                        on_disconnected, caller);
	return r < 0 ? r : sd_bus_attach_event(caller->bus, caller->server->event, 0);
}

static struct caller *free_place(struct control_server *server)
{
	for (size_t i = 0; i < CALLERS_MAX; i++)
		if (!server->callers[i].bus)
			return &server->callers[i];
	return NULL;
}

static int on_caller(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
	AUTO_FD fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct control_server *server = userdata;
	struct caller *caller = free_place(server);
	int r;

	(void) source;
	(void) events;
	if (fd < 0)
		return 0;
	if (!caller) {
		log_debug("more than %u callers on the control socket: closing one", CALLERS_MAX);
		return 0;
	}
	r = start_bus(caller, take_fd(&fd));
	if (r < 0) {
		log_warning("cannot talk on the control socket: %s", strerror(-r));
		drop(caller);
	}
	return 0;
}

int control_serve(sd_event *event, int fd, const struct control_object *object,
                  struct control_server **ret, struct failure *why)
{
	struct control_server *server = calloc(1, sizeof *server);
	int r = -ENOMEM;

	if (!server) {
		close_fd(&fd);
		return fail(why, ENOMEM, "cannot serve the control socket");
	}
	*server = (struct control_server) { .object = object, .fd = fd,
	                                    .event = sd_event_ref(event) };
	for (size_t i = 0; i < CALLERS_MAX; i++)
		server->callers[i].server = server;
	r = sd_event_add_io(event, &server->accepting, fd, EPOLLIN, on_caller, server);
	if (r < 0) {
		control_server_free(server);
		return fail(why, -r, "cannot serve the control socket");
	}
	*ret = server;
	return 0;
}

void control_server_free(struct control_server *server)
{
	if (!server)
		return;
	server->accepting = sd_event_source_disable_unref(server->accepting);
	for (size_t i = 0; i < CALLERS_MAX; i++) {
		if (server->callers[i].bus)
			(void) sd_bus_flush(server->callers[i].bus);
		drop(&server->callers[i]);
	}
	close_fd(&server->fd);
	sd_event_unref(server->event);
	free(server);
}

int control_check_change(sd_bus_message *m, sd_bus_error *ret_error)
{
	int fd = sd_bus_get_fd(sd_bus_message_get_bus(m));
	struct ucred cred = { .uid = (uid_t) -1 };
	socklen_t len = sizeof cred;
	char who[PEER_TEXT_SIZE];

	if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	    (cred.uid == 0 || cred.uid == geteuid()))
		return 0;
	format_peer(fd, who, sizeof who);
	log_event(EVENT_CONTROL_DENIED, &(struct subject) { .client = who },
	          "%s is for root: not done", sd_bus_message_get_member(m));
	return sd_bus_error_setf(ret_error, "org.nbd_export.Error.NotPermitted",
	                         "%s changes something, which only root may",
	                         sd_bus_message_get_member(m));
}
