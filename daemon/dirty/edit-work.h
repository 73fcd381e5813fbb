/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An edit while it is carried out: for edit.c, which does, and edit-rules.c, which says what each means.
 */
#pragma once

#include "dirty/tracker-state.h"

/* One edit on its way. */
struct work {
	struct tracker *tracker;
	struct edit *edit;
	struct catalogue *draft;
	struct delta *fresh;            /* recording from the cut on; NULL: the same as before */
	bool gate_closed;               /* by us */
};

struct edit_rule {
	bool makes;                     /* the name must be free; else it must be there */
	bool changes;                   /* not while somebody has selected it */
	bool cuts;
	bool nameless;                  /* it is about no bitmap */
	int (*apply)(struct work *work, struct bitmap_entry *entry);    /* NULL entry: see `makes` */
};

/* By enum edit_kind; EDIT_HOLD and EDIT_RELEASE have none. */
extern const struct edit_rule edit_rules[];

/* The sentence, with the bitmap's name before it.  -code. */
int edit_refuse(struct work *work, int code, const char *sentence);

/* A bitmap may be called so. */
int edit_check_name(struct work *work, const char *name);
