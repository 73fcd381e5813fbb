/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: D-Bus, peer to peer, on a unix socket of our own (--control=).
 *
 * Who can connect (the socket's mode) may read; root and our own user may change things.
 * Object /org/nbd_export/export, interface org.nbd_export.Export1; `busctl --address=unix:path=...`
 * works, for the one method of a bus that it needs (Hello) is answered, too.  Calls that
 * wait for the loops are answered later, and others meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/failure.h"

#define CONTROL_PATH "/org/nbd_export/export"
#define CONTROL_INTERFACE "org.nbd_export.Export1"

#define CONTROL_ERROR_NOT_PERMITTED "org.nbd_export.Error.NotPermitted"
#define CONTROL_ERROR_NO_SUCH_CONNECTION "org.nbd_export.Error.NoSuchConnection"
#define CONTROL_ERROR_BAD_STATE "org.nbd_export.Error.BadState"
#define CONTROL_ERROR_FAILED "org.nbd_export.Error.Failed"

struct server;

/* One caller. */
struct control_peer {
	struct control_peer *next;
	struct server *server;
	sd_bus *bus;
	uid_t uid;
	pid_t pid;
	unsigned rounds;                /* of the census to wait for before it is listened to */
};

/* A call that is answered later. */
enum waits_for { WAITS_FOR_CLIENTS, WAITS_FOR_DRAIN, WAITS_FOR_RELOAD };

struct control_call {
	struct control_call *next;
	sd_bus_message *message;
	enum waits_for what;
	unsigned rounds;                /* WAITS_FOR_CLIENTS */
};

struct control {
	struct server *server;
	char *path;                     /* NULL: there is no socket */
	int fd;
	sd_event_source *source;
	sd_event_source *patience;      /* until a census that does not end is not waited for */
	struct control_peer *peers;
	unsigned n_peers;
	struct control_call *calls;
	unsigned n_calls;
};

/* `path` may be NULL. */
int control_start(struct control *control, struct server *server, const char *path,
                  struct failure *why);
/* Also of one that is all zeroes. */
void control_stop(struct control *control);

/* What calls may be waiting for has happened. */
void control_tell_round(struct control *control);
void control_tell_drained(struct control *control);
void control_tell_reloaded(struct control *control, const struct failure *why);

/* For control-object.c. */
extern const sd_bus_vtable control_vtable[];    /* userdata: struct control_peer */

/* The call is answered once that has happened: 1, or an error to return. */
int control_defer(struct control_peer *peer, sd_bus_message *message, enum waits_for what,
                  sd_bus_error *error);

/* For control.c: answers with what is known of the clients. */
int control_reply_clients(struct server *server, sd_bus_message *message);
