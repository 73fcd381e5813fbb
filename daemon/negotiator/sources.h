/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where clients come from: who has how many connections, in the handshake and being served.
 *
 * A source (base/peer.h says what one is) is remembered as long as something refers to it:
 * each client in the handshake and each one that is being served.
 */
#pragma once

#include <stdint.h>

#include "base/peer.h"
#include "negotiator/list.h"

#define SOURCES_BUCKETS 1024u

struct source {
	struct peer who;
	struct source *next;            /* in its bucket */
	unsigned n_refs;
	struct list handshakes;         /* of client.of_source, oldest first */
	unsigned n_handshakes;
	unsigned n_live;                /* being served, or about to be */
	uint64_t refused_since;         /* clients turned away that the log has not told */
	uint64_t next_log;              /* when it may be told again; CLOCK_MONOTONIC */
};

struct sources {
	struct source *buckets[SOURCES_BUCKETS];
	uint64_t seed;                  /* so that nobody can choose the bucket */
	unsigned n_live;
};

void sources_init(struct sources *sources);

/* The source of `peer`, with a reference for the caller; NULL when memory is short. */
struct source *sources_get(struct sources *sources, const struct peer *peer);
void sources_put(struct sources *sources, struct source *source);

/* The one with the most handshakes, or NULL. */
struct source *sources_busiest(struct sources *sources);
