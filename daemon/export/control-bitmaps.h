/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * org.nbd_export.Bitmaps1, the second interface of the export's control object: how an
 * administrator changes bitmaps (control-bitmaps.c) and reads them (control-views.c).
 *
 * Every call but Status is answered later: changes are the recorder's work, and to count the
 * dirty bytes of a large device is the pool's.  A Hold is its caller's, and ends with it.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "base/control-server.h"
#include "export/pool.h"

#define BITMAPS_INTERFACE "org.nbd_export.Bitmaps1"

#define CONTROL_ERROR_NO_SUCH_BITMAP "org.nbd_export.Error.NoSuchBitmap"
#define CONTROL_ERROR_BITMAP_EXISTS "org.nbd_export.Error.BitmapExists"
#define CONTROL_ERROR_BITMAP_BUSY "org.nbd_export.Error.BitmapBusy"

struct server;

/* One that is under way, in the object that has the rest; the main thread's but for `job`. */
struct bitmap_call {
	struct bitmap_call *next;
	struct server *server;
	sd_bus *caller;                 /* borrowed: not after it has left */
	sd_bus_message *message;        /* NULL: nobody waits for the answer */
	char who[CONTROL_CALLER_SIZE];
	struct letter letter;           /* to the main thread, from the recorder */
	struct job job;                 /* the pool's */
	void (*free)(struct bitmap_call *call);
};

struct bitmap_calls {
	struct bitmap_call *first;
	unsigned n;
	const sd_bus *holder;           /* whose Hold is in force; compared only */
};

extern const sd_bus_vtable bitmaps_vtable[];    /* userdata: struct server */

/* For control.c */
void bitmaps_caller_left(struct server *server, const sd_bus *caller);

/* Waits until the recorder and the pool have given back what they work on. */
void bitmaps_end(struct server *server);

/* Between the two files: counts a call in, which is zero but for `free`; sd-bus's error if not. */
int bitmap_call_begin(struct bitmap_call *call, struct server *server, sd_bus_message *message,
                      sd_bus_error *error);
/* Forgets it, and frees it. */
void bitmap_call_end(struct bitmap_call *call);

/* control-views.c */
int bitmaps_list(sd_bus_message *message, void *userdata, sd_bus_error *error);
int bitmaps_extents(sd_bus_message *message, void *userdata, sd_bus_error *error);
int bitmaps_map(sd_bus_message *message, void *userdata, sd_bus_error *error);
int bitmaps_status(sd_bus_message *message, void *userdata, sd_bus_error *error);
