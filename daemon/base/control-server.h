/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemons' side of a control socket: sd-bus, peer to peer, on a unix socket of one's own.
 * No bus daemon has a part in it, but busctl can talk to it and introspect it.
 *
 * Who can connect, by the socket's mode, may read; what changes something asks
 * control_check_change() first.
 */
#pragma once

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/failure.h"

#define CONTROL_GROUP "nbd-export"      /* may connect, where that group exists */

/* What is served; borrowed for good. */
struct control_object {
	const char *path;
	const char *interface;
	const sd_bus_vtable *vtable;
	void *userdata;
};

struct control_server;

/* A socket that listens at `path`, mode 0660; a stale one is replaced.  Needs the file system:
 * before the sandbox. */
int control_listen(const char *path, int *ret_fd, struct failure *why);

/* Serves on `fd`, which it takes in every case. */
int control_serve(sd_event *event, int fd, const struct control_object *object,
                  struct control_server **ret, struct failure *why);

/* Ends all connections; NULL is fine. */
void control_server_free(struct control_server *server);

/* Whether who called `m` may change something: root, and who we are.  0, or a negative error
 * that the handler returns; it is in the log then. */
int control_check_change(sd_bus_message *m, sd_bus_error *ret_error);
