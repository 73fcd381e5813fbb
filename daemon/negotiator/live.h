/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is being served by an export, as far as its channel tells, and who is about to be.
 *
 * A client takes its place before the export is asked for a reservation, so that many at once
 * cannot slip past a limit together.  After a restart of the negotiator the places of an
 * export are known again once its channel is connected, which the first client does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/export-settings.h"
#include "base/peer.h"
#include "negotiator/list.h"
#include "negotiator/sources.h"

/* Of one export: as many as it may have clients. */
#define PLACES_MAX EXPORT_CONNECTIONS_MAX

struct places {
	struct sources *sources;        /* shared by all exports */
	struct list list;
	unsigned n;
};

struct place {
	struct list node;
	struct places *places;
	struct source *source;
	uint32_t request;               /* of its RESERVE; 0 when it is not known */
	uint64_t connection;            /* 0: not handed over yet */
};

void places_init(struct places *places, struct sources *sources);

/* NULL when there are too many, or memory is short. */
struct place *place_take(struct places *places, const struct peer *peer);
void place_free(struct place *place);

/* Of those handed over, by their connection's number or that of their RESERVE; or NULL. */
struct place *places_find(struct places *places, uint64_t connection);
struct place *places_find_request(struct places *places, uint32_t request);

/* How many of the places that source has. */
unsigned places_of(const struct places *places, const struct source *source);

/* The channel has ended: who was handed over is no longer known.  Who is about to be keeps
 * its place. */
void places_forget(struct places *places);
