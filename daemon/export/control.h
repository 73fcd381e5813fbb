/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The export's control socket (--control=): base/control-server.h, with figures that are new.
 *
 * Object /org/nbd_export/export, interface org.nbd_export.Export1; docs/control.md has its members.
 * A caller is heard after a census that began when it was there, so that properties are of now;
 * calls that wait for the loops are answered later, and others meanwhile.
 */
#pragma once

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/control-server.h"
#include "base/failure.h"
#include "export/control-bitmaps.h"

#define CONTROL_PATH "/org/nbd_export/export"
#define CONTROL_INTERFACE "org.nbd_export.Export1"

#define CONTROL_ERROR_NO_SUCH_CONNECTION "org.nbd_export.Error.NoSuchConnection"
#define CONTROL_ERROR_BAD_STATE "org.nbd_export.Error.BadState"

struct server;

enum waits_for {
	WAITS_TO_BE_HEARD, WAITS_FOR_CLIENTS, WAITS_FOR_DRAIN, WAITS_FOR_RELOAD,
	WAITS_FOR_NEXT_RELOAD,          /* the one that is under way may have read older files */
};

/* A caller that is to be heard, or a call of one that is answered later. */
struct control_wait {
	struct control_wait *next;
	enum waits_for what;
	sd_bus *caller;                 /* borrowed: whoever leaves waits no more */
	sd_bus_message *message;        /* the call; NULL: to be heard */
	unsigned rounds;                /* of the census, where that is what it waits for; else 0 */
};

struct control {
	struct server *server;
	const char *path;               /* NULL: there is no socket */
	struct control_object object;
	struct control_server *callers;
	sd_event_source *patience;      /* until a census that does not end is not waited for */
	struct control_wait *waits;
	unsigned n_calls;               /* of those that wait */
	struct bitmap_calls bitmaps;
};

/* `path` may be NULL, and is borrowed for good. */
int control_start(struct control *control, struct server *server, const char *path,
                  struct failure *why);
/* Also of one that is all zeroes. */
void control_stop(struct control *control);

/* What calls may be waiting for has happened. */
void control_tell_round(struct control *control);
void control_tell_drained(struct control *control);
void control_tell_resumed(struct control *control, const char *who);    /* and so not drained */
void control_tell_reloaded(struct control *control, const struct failure *why);

/* For control-object.c. */
extern const sd_bus_vtable control_vtable[];    /* userdata: struct server */

/* The call is answered once that has happened: 1, or an error to return. */
int control_defer(struct server *server, sd_bus_message *message, enum waits_for what,
                  sd_bus_error *error);

/* For control.c: answers with what is known of the clients. */
int control_reply_clients(struct server *server, sd_bus_message *message);
