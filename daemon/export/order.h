/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serialises changes that share a sector.
 *
 * A write that does not cover whole sectors is read, changed and written back: while that
 * goes on, nobody else may change those sectors, or one of the two updates would
 * be lost.  So every change takes its range: aligned ones `shared` (they may overlap each other
 * as they like, as on any disk), the others alone.  The first come goes first where two
 * ranges conflict; others pass.
 *
 * One object per export, over all its rings.  Ranges are taken and given by the thread of the
 * ring that they belong to.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dirty/tracker.h"
#include "export/mailbox.h"

struct range {
	uint64_t start, end;            /* bytes; whole sectors */
	uint64_t end_asked;             /* the owner's, for the bytes it really means */
	bool alone;
	bool held, waiting;
	bool fresh;
	uint32_t weight;                /* in a tree */
	void (*granted)(struct range *range);   /* called later, where order_take() was false */
	struct mailbox *home;           /* of the ring that it belongs to */
	struct letter letter;           /* granted by another ring, or by the keeper of bitmaps */
	struct change change;           /* see change.h */
	void (*go)(struct range *range);        /* likewise */
	uint64_t number;                /* as they came, from 1 */
	union {
		struct range *previous, *left;  /* among the fresh, or in a tree: range-tree.h */
	};
	union {
		struct range *next, *right;
	};
	uint64_t far, oldest, newest;   /* in a tree, with those below: latest end, numbers */
	struct range *dependents;       /* who waits for this one, linked by next_dependent */
	struct range *next_dependent;
};

struct order {
	pthread_mutex_t lock;
	bool shared;                    /* by several threads: the lock is needed */
	struct range *fresh;            /* aligned, and nobody has looked for them yet: a list */
	struct range *aligned, *alone;  /* the others: trees */
	uint64_t n_taken, random;
	uint64_t n_steps;               /* ranges that were looked at, ever; for tests */
};

/* `shared`: whether several threads use it. */
void order_init(struct order *order, bool shared);

/* True: the range is held now.  False: it waits, and range->granted will be called. */
bool order_take(struct order *order, struct range *range);

/* May call `granted` of others, at once if they have the same home.  A range that is not held
 * is left as it is. */
void order_give(struct order *order, struct range *range);
