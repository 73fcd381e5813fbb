/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What reading a store has found besides what it holds: for the offline check.
 */
#pragma once

#include "dirty/store.h"

struct area_scan {
	uint32_t n_written;             /* pages that have a slot that is right */
	uint32_t n_damaged;             /* slots */
	uint32_t n_announced;           /* of those, announced: torn, and harmless */
};

struct store_scan {
	/* By slot: what is wrong with it, or NULL. */
	const char *geometry_wrong[2];
	const char *catalogue_wrong[2];
	const char *record_wrong[2];
	struct area_scan areas[AREAS_MAX];
};

/* As store_open(). */
int store_open_scan(struct store *store, struct medium *medium, struct store_recovery *ret_recovery,
                    struct store_scan *ret_scan, struct failure *why);

/* All pages of all deltas in the catalogue.  0, -ENOMEM. */
int store_read_deltas(struct store *store, struct store_recovery *recovery,
                      struct store_scan *scan);

/* Blocks that cannot be read come as rubbish, which no unit is. */
void store_read_blocks(struct store *store, uint64_t at, uint8_t *ret, size_t length);
