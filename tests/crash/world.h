/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store on a simulated disk, somebody who uses it, and what it ought to hold.
 *
 * "Truth" is, for every bitmap, which granules have been written to since it was made or
 * cleared.  At every write and sync of the disk images are taken and opened, and compared.
 */
#pragma once

#include "dirty/store.h"
#include "disk.h"

/* A catalogue, and by bitmap the least that it must show. */
struct version {
	struct catalogue catalogue;
	uint64_t *truth[BITMAPS_MAX];
};

struct figures {
	uint64_t n_points, n_images, n_unclean;
	uint64_t n_power_cuts, n_kills, n_failed_syncs, n_commits, n_records, n_pages;
	uint64_t n_mended;              /* damaged pages that fell back */
};

struct world {
	struct disk disk;
	struct image image;
	struct store store;
	struct delta *fresh;            /* in no catalogue yet */
	struct version now, next;       /* next: while a commit is under way */
	bool committing;
	bool old_is_gone;               /* the new one has been seen after a sync */
	uint32_t n_words, n_regions, granules_per_region;
	bool *armed;                    /* by region, of which a synced record tells */
	uint64_t *maybe_armed;          /* by granule, that one under way included */
	uint64_t *shown, *expected;     /* scratch */
	struct store found;             /* scratch: what an image holds */
	unsigned n_subsets;             /* images at random, for each moment */
	bool may_die;                   /* the power may go while things are under way */
	bool quiet;                     /* no images meanwhile */
	const char *step;               /* what is being done, for complaints */
	uint64_t seed;
	struct figures *figures;
};

void world_init(struct world *world, const struct store_geometry *geometry, uint64_t seed,
                struct figures *figures);
void world_deinit(struct world *world);

/* The power goes, and comes back: any part of what was not synced is there. */
void world_cut_power(struct world *world);

/* The program is killed: all of it is there, and some still not synced. */
void world_kill(struct world *world);

/* What the store does, with the expectations along.  0, or that it failed: the disk is dead, or
 * one sync of it was.  Records are ascending, `next` is ready. */
int world_record(struct world *world, const uint32_t *regions, uint32_t n_regions,
                 const uint32_t *pages, uint32_t n_pages);
int world_commit(struct world *world);

/* Says what is wrong, with the figures, and ends the program. */
void complain(const struct world *world, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));

void version_copy(const struct world *world, struct version *to, const struct version *from);
void version_clear(struct version *version);

uint64_t *new_words(const struct world *world);

/* One random step of the work that a recorder does, in work.c.  What failed half-way leaves
 * nothing that the next step could not go on from, but for a dead disk. */
void work_step(struct world *world);
