/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemons' side of a control socket: sd-bus, peer to peer, on a unix socket of one's own.
 * No bus daemon has a part in it, but busctl can talk to it and introspect it.
 *
 * Who can connect, by the socket's mode, may read; what changes something asks
 * control_check_change() first.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/failure.h"

#define CONTROL_GROUP "nbd-export"      /* may connect, where that group exists */
#define CONTROL_ERROR_NOT_PERMITTED "org.nbd_export.Error.NotPermitted"
#define CONTROL_ERROR_FAILED "org.nbd_export.Error.Failed"

/* What is served; borrowed for good. */
struct control_object {
	const char *path;
	const char *interface;
	const sd_bus_vtable *vtable;
	void *userdata;                 /* of the vtable, and of these two, which may be NULL: */

	/* Somebody has connected, and is heard only after control_hear().  A negative errno
	 * sends the caller away. */
	int (*arrived)(void *userdata, sd_bus *caller);
	void (*left)(void *userdata, sd_bus *caller);
};

struct control_server;

/* A socket that listens at `path`, mode 0660; a stale one is replaced.  `group`: whose it is to
 * be, if there is such a group and we may; NULL: our own.  Needs the file system: before the
 * sandbox. */
int control_listen(const char *path, const char *group, int *ret_fd, struct failure *why);

/* Serves on `fd`, which it takes in every case. */
int control_serve(sd_event *event, int fd, const struct control_object *object,
                  struct control_server **ret, struct failure *why);

/* Listens to who arrived from now on. */
void control_hear(struct control_server *server, sd_bus *caller);

/* How many are connected; NULL is fine. */
unsigned control_n_callers(const struct control_server *server);

/* Ends all connections, without waiting for anybody; NULL is fine. */
void control_server_free(struct control_server *server);

/* From here on whoever is the same user as this process may change things, too.  Not where several
 * processes share a user and must be kept apart. */
void control_trust_own_user(void);

/* Whether root called `m`. */
bool control_is_root(sd_bus_message *m);

/* Whether who called `m` may change something: root, and who is trusted of the `daemon` ("export").
 * 0, or a negative error that the handler returns; it is in the log then. */
int control_check_change(sd_bus_message *m, const char *daemon, sd_bus_error *ret_error);

/* Who called `m`, for sentences: "user 0 (process 4711)". */
#define CONTROL_CALLER_SIZE 64u
const char *control_caller(sd_bus_message *m, char ret[static CONTROL_CALLER_SIZE]);
