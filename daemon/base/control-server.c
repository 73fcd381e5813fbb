/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A control socket: accepts, and has one sd-bus for each caller. */
#include "base/clock.h"
#include "base/control-server.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/listen.h"
#include "base/log.h"
#include "base/text.h"

#define CALLERS_MAX 64u                 /* more may come only as root */

struct caller {
	struct caller *next;
	struct control_server *server;
	sd_bus *bus;
};

struct control_server {
	const struct control_object *object;
	int fd;
	sd_event *event;
	sd_event_source *accepting;
	struct caller *callers;
	unsigned n_callers;
};

int control_listen(const char *path, const char *group, int *ret_fd, struct failure *why)
{
	const struct group *found;
	AUTO_FD fd = -1;
	int r = listen_unix(path, SOCK_STREAM, &fd, why);

	if (r < 0)
		return fail_while(why, "cannot listen at the control socket");
	/* Without the right to give it to the group it stays with us and root. */
	found = group ? getgrnam(group) : NULL;
	if (found)
		(void) !chown(path, (uid_t) -1, found->gr_gid);
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

/* Answers have gone out as far as the caller's socket took them: nobody waits for the rest. */
static void drop(struct caller *caller)
{
	struct control_server *server = caller->server;
	struct caller **at = &server->callers;

	while (*at != caller)
		at = &(*at)->next;
	*at = caller->next;
	server->n_callers--;
	if (caller->bus && server->object->left)
		server->object->left(server->object->userdata, caller->bus);
	sd_bus_close_unref(caller->bus);
	free(caller);
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	(void) m;
	(void) ret_error;
	drop(userdata);
	return 0;
}

/* Takes `fd` in every case.  -errno. */
static int make_bus(struct caller *caller, int fd)
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
		r = sd_bus_set_sender(caller->bus, object->interface);
	if (r >= 0)                     /* else the end of the loop would wait for the caller */
		r = sd_bus_set_close_on_exit(caller->bus, 0);
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
	return r;
}

static int hear(struct control_server *server, sd_bus *bus)
{
	int r = sd_bus_start(bus);

	return r < 0 ? r : sd_bus_attach_event(bus, server->event, SD_EVENT_PRIORITY_NORMAL);
}

void control_hear(struct control_server *server, sd_bus *caller)
{
	int r = hear(server, caller);

	if (r < 0)
		log_warning("cannot talk on the control socket: %s", strerror(-r));
}

/* Who is at the other end; false when that cannot be told any more. */
static bool caller_of(int fd, struct ucred *ret)
{
	socklen_t len = sizeof *ret;

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0;
}

/* Whoever keeps connections idle keeps root out last of all: never. */
static bool has_room(const struct control_server *server, int fd)
{
	struct ucred who;

	return caller_of(fd, &who) && (who.uid == 0 || server->n_callers < CALLERS_MAX);
}

static int welcome(struct control_server *server, int *fd)
{
	const struct control_object *object = server->object;
	struct caller *caller = calloc(1, sizeof *caller);
	int r;

	if (!caller)
		return -ENOMEM;
	*caller = (struct caller) { .next = server->callers, .server = server };
	server->callers = caller;
	server->n_callers++;
	r = make_bus(caller, take_fd(fd));
	if (r >= 0)
		r = object->arrived ? object->arrived(object->userdata, caller->bus)
		                    : hear(server, caller->bus);
	if (r < 0)
		drop(caller);
	return r;
}

static int on_caller(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
	AUTO_FD fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct control_server *server = userdata;
	int r;

	(void) events;
	if (fd < 0) {
		/* Out of descriptors or memory: do not spin on those who wait. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			(void) sd_event_source_set_ratelimit(source, USEC_PER_SEC, 10);
		return 0;
	}
	if (!has_room(server, fd)) {
		log_debug("more than %u callers on the control socket: closing one", CALLERS_MAX);
		return 0;
	}
	r = welcome(server, &fd);
	if (r < 0)
		log_warning("cannot talk on the control socket: %s", strerror(-r));
	return 0;
}

int control_serve(sd_event *event, int fd, const struct control_object *object,
                  struct control_server **ret, struct failure *why)
{
	struct control_server *server = calloc(1, sizeof *server);
	int r;

	if (!server) {
		close_fd(&fd);
		return fail(why, ENOMEM, "cannot serve the control socket");
	}
	*server = (struct control_server) { .object = object, .fd = fd,
	                                    .event = sd_event_ref(event) };
	r = sd_event_add_io(event, &server->accepting, fd, EPOLLIN, on_caller, server);
	if (r < 0) {
		control_server_free(server);
		return fail(why, -r, "cannot serve the control socket");
	}
	*ret = server;
	return 0;
}

unsigned control_n_callers(const struct control_server *server)
{
	return server ? server->n_callers : 0;
}

void control_server_free(struct control_server *server)
{
	if (!server)
		return;
	server->accepting = sd_event_source_disable_unref(server->accepting);
	while (server->callers)
		drop(server->callers);
	close_fd(&server->fd);
	sd_event_unref(server->event);
	free(server);
}

static bool caller_of_message(sd_bus_message *m, struct ucred *ret)
{
	return caller_of(sd_bus_get_fd(sd_bus_message_get_bus(m)), ret);
}

const char *control_caller(sd_bus_message *m, char ret[static CONTROL_CALLER_SIZE])
{
	struct ucred who;

	if (caller_of_message(m, &who))
		(void) snprintf(ret, CONTROL_CALLER_SIZE, "user %u (process %ld)",
		                (unsigned) who.uid, (long) who.pid);
	else
		(void) snprintf(ret, CONTROL_CALLER_SIZE, "somebody who has left");
	return ret;
}

bool control_is_root(sd_bus_message *m)
{
	struct ucred cred;

	return caller_of_message(m, &cred) && cred.uid == 0;
}

/* Of the process, as the user is, whatever it serves. */
static bool trusts_own_user;

void control_trust_own_user(void)
{
	trusts_own_user = true;
}

int control_check_change(sd_bus_message *m, const char *daemon, sd_bus_error *ret_error)
{
	char who[CONTROL_CALLER_SIZE];
	struct ucred cred;

	if (caller_of_message(m, &cred) &&
	    (cred.uid == 0 || (trusts_own_user && cred.uid == geteuid())))
		return 0;
	log_event(EVENT_CONTROL_DENIED, &(struct subject) { .client = control_caller(m, who) },
	          "may not call %s, which is for root", sd_bus_message_get_member(m));
	return sd_bus_error_setf(ret_error, CONTROL_ERROR_NOT_PERMITTED,
	                         "only root%s%s%s may do this (%s)",
	                         trusts_own_user ? " and the " : "", trusts_own_user ? daemon : "",
	                         trusts_own_user ? "'s own user" : "", sd_bus_message_get_member(m));
}
