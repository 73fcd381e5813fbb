/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the loops say about themselves and their clients, asked by letter, never read from
 * their memory.
 *
 * A round asks every loop at once; each writes its figures on its sheet and sends it back.  That
 * it does so shows that its thread is alive.  A round that is under way is joined, not doubled.
 * The main thread's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "export/conn.h"

struct admission;
struct census;

/* One client, as its loop sees it. */
struct figures {
	struct conn_stats stats;
	unsigned in_flight;             /* requests */
	uint64_t memory;                /* bytes of buffers that it holds */
};

struct line {
	void *admitted;                 /* struct conn's; not looked at by the loop */
	struct figures figures;
};

/* One loop's answer; its own while the letter is with it. */
struct sheet {
	struct letter letter;
	struct census *census;
	struct loop *loop;
	struct line *lines;
	unsigned room, n;
	bool out;                       /* not back yet */
	uint64_t memory_used;           /* bytes */
	uint64_t oldest;                /* device I/O under way since at least; monotonic ns, or 0 */
};

struct census {
	struct admission *admission;
	struct sheet *sheets;
	unsigned n_sheets, n_out;
	uint64_t began;                 /* of the round under way, or the last; monotonic ns */
	void (*on_round)(struct census *census);        /* every sheet is back */
};

int census_init(struct census *census, struct admission *admission, struct failure *why);
/* After the loops have ended. */
void census_deinit(struct census *census);

/* Begins a round if none is under way.  -ENOMEM */
int census_ask(struct census *census);

/* Whether the loops that have not answered only wait for the device by themselves. */
bool census_excused(const struct census *census);

/* Since when device I/O is known to be under way: monotonic nanoseconds, or 0. */
uint64_t census_oldest(const struct census *census);
uint64_t census_memory(const struct census *census);
