/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the export's file again and takes over what can change while clients are connected:
 * MaxConnections=, IdleTimeout=, ResizeReconnect=, Description= and Name=.  What needs a restart is
 * named in the log and stays; keys that only the negotiator heeds are its own.  A bad file changes nothing.
 *
 * More connections need more memory, which only the loops can add to theirs: until
 * they have, the old settings hold.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "export/mailbox.h"

struct loop;
struct server;

/* A loop's part of it. */
struct growth {
	struct letter letter;
	struct server *server;
	struct loop *loop;
	unsigned n;                     /* clients more */
	int result;
};

struct reload {
	bool runs;
	bool kept;                      /* the last one: the file was bad */
	bool again;                     /* another one was asked for meanwhile */
	struct export_settings wanted;
	struct growth *growths;
	unsigned n_out;
	int result;                     /* of the growth */
};

/* "Device=, Threads=": what differs and cannot change without a restart; "" if nothing. */
void reload_name_fixed(const struct export_settings *old, const struct export_settings *new,
                       char *ret, size_t size);

/* Begins; control_tell_reloaded() follows, perhaps at once. */
void reload_begin(struct server *server);
void reload_clear(struct reload *reload);
