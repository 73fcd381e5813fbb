/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A running export's bitmaps, over its control socket: the interface org.nbd_export.Bitmaps1.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "ctl/control.h"
#include "ctl/places.h"

/* Connects.  An export that systemd's units serve and that does not run is started. */
int bitmap_connect(const struct places *p, const char *label, sd_bus **ret, struct failure *why);

/* --- changes -------------------------------------------------------------- */

struct bitmap_edit {
	const char *method;             /* "Add" */
	const char *name;
	const char *other;              /* Rename; else NULL */
	char *const *sources;           /* Merge, Delta; end with NULL; else NULL */
	uint64_t granularity;           /* Add; 0: as usual */
	bool disabled, force, held;
	const char *group;              /* Checkpoint, of several exports: its id; else NULL */
};

int bitmap_edit(sd_bus *bus, const char *label, const struct bitmap_edit *edit,
                struct failure *why);

/* No write begins any more until bitmap_release(), or this connection ends. */
int bitmap_hold(sd_bus *bus, const char *label, struct failure *why);
/* Checkpoints of groups become what has been decided; see base/group-file.h. */
int bitmap_resolve(sd_bus *bus, const char *label, struct failure *why);
int bitmap_release(sd_bus *bus, const char *label, struct failure *why);

/* --- what is there -------------------------------------------------------- */

struct bitmap_row {
	char *name, *state, *reason;
	uint64_t dirty, size, created, since;
	uint32_t granularity, clients;
	bool everything, checkpoint;
};

int bitmap_list(sd_bus *bus, const char *label, struct bitmap_row **ret, size_t *ret_n,
                struct failure *why);
void bitmap_rows_free(struct bitmap_row *rows, size_t n);

/* -ENOENT when there is none of that name. */
int bitmap_find(sd_bus *bus, const char *label, const char *name, struct bitmap_row *ret,
                struct failure *why);
void bitmap_row_clear(struct bitmap_row *row);

/* Every dirty stretch, in order; until a checkpoint, or "". */
int bitmap_extents(sd_bus *bus, const char *label, const char *name, const char *until,
                   void (*each)(void *userdata, uint64_t start, uint64_t length), void *userdata,
                   struct failure *why);

/* The dirty bytes of each of `n` parts of the device. */
int bitmap_map(sd_bus *bus, const char *label, const char *name, uint32_t n, uint64_t *cells,
               uint64_t *ret_size, struct failure *why);

struct bitmap_status {
	char *path, *failing;
	uint64_t granularity, region, unclean_ends, over_reported, records, page_writes;
	uint32_t arm_limit, armed;
	bool has_store, recording;
};

int bitmap_status(sd_bus *bus, const char *label, struct bitmap_status *ret, struct failure *why);
void bitmap_status_clear(struct bitmap_status *s);
