/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file that keeps bitmaps through crashes.  docs/bitmap-format.md has it byte by byte.
 *
 *   block 0, 1   geometry, twice; written when the store is made, never again
 *   catalogue    two slots; the one with the higher sequence number counts
 *   record       two slots; what is armed, and which pages are being written
 *   areas        one delta each: for every page two slots
 *
 * A slot is never written while it is the one that counts.  So whatever is torn by a power cut
 * is the slot that was being written, and the other one holds what was true before.  Catalogue
 * and record go to the other slot too once the first is durable, so that a block that rots
 * brings no older one back.
 *
 *   page    had been synced before the record that disarmed its regions
 *   record  what it armed has not been used, since its sync had not come back
 *   catalogue  the change had not been acknowledged
 *
 * A page slot that is damaged without having been announced (store_record.pages) was not torn by
 * us: all of the page's granules count as dirty, in whatever it may have belonged to.
 *
 * The order is kept in here: pages that were written and areas that were prepared are synced
 * before a record or catalogue says so; what recovery found damaged is mended before anything
 * else is written.
 *
 * What failed may or may not be on the medium.  It is written to the same slots when it is tried
 * again: until that has succeeded, neither what it armed nor what it disarmed may be relied on.
 *
 * One thread at a time.  It allocates when it is opened and when areas are prepared, and not for
 * records and pages.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "dirty/catalogue.h"
#include "dirty/delta.h"
#include "dirty/medium.h"

#define STORE_BLOCK 4096u
#define STORE_PAGES_AT_ONCE 256u        /* that one record can announce */

struct store_geometry {
	unsigned granule_shift;         /* 12 to 24: 4 KiB to 16 MiB */
	unsigned region_shift;          /* 16 to 34, at least the granule's */
	uint32_t arm_limit;             /* regions, 64 to 65536 */
	uint64_t size;                  /* bytes of the device */
};

/* What is armed, and what is being written.  Sorted, each once. */
struct store_record {
	const uint32_t *regions;
	uint32_t n_regions;
	const uint32_t *pages;          /* of the recording delta */
	uint32_t n_pages;               /* at most STORE_PAGES_AT_ONCE */
};

/* What recovery found; all zero after a clean end. */
struct store_recovery {
	bool unclean;
	uint32_t n_armed;               /* regions that were, and are dirty as a whole now */
	uint32_t *regions;              /* those; the caller frees it */
	uint64_t over_reported;         /* bytes that became dirty by that */
	uint32_t n_torn_pages;          /* damaged for another reason: dirty as a whole */
	bool record_missing;            /* nobody knows what was armed: everything is dirty */
};

/* Pages of the recording delta that were found damaged, to be written before anything else. */
struct store_mending {
	struct delta *delta;            /* NULL: nothing to mend */
	bool everything;                /* instead of the list */
	uint32_t *pages;                /* with PAGE_SLOT_BIT where both slots are damaged */
	size_t n_pages, room;
};

struct store {
	struct medium *medium;
	uint8_t uuid[16];
	struct store_geometry geometry;
	struct catalogue catalogue;     /* as it is on the medium */
	/* By area, with a reference each.  Who commits another catalogue puts its deltas here. */
	struct delta *deltas[AREAS_MAX];
	uint64_t n_granules;
	uint32_t n_pages;
	uint32_t n_regions;
	uint64_t catalogue_at, record_at, areas_at, area_size, record_size;     /* bytes */
	uint8_t catalogue_slot, record_slot;    /* the ones that count */

	/* The record that counts: what is armed as the medium has it, also just after opening. */
	bool has_record;
	uint64_t record_sequence;
	uint32_t *armed, n_armed;
	uint32_t *announced, n_announced;       /* pages, with the slot in PAGE_SLOT_BIT */
	uint64_t announced_id;                  /* of their delta */

	/* By page: the sequence, times two, plus the slot that counts; 0: never written. */
	uint64_t *page_sequences[AREAS_MAX];
	uint64_t page_sequence;
	uint64_t synced_sequence;       /* of pages, when a sync last succeeded */
	bool unsynced;                  /* pages or areas have been written since */
	bool unsure;                    /* which catalogue is on the medium */
	struct store_mending mending;
	uint8_t *buffer;                /* record_size or CATALOGUE_SIZE bytes, whichever is more */
};

/* NULL, or what is wrong with it, in words. */
const char *store_geometry_wrong(const struct store_geometry *geometry);

/* Makes an empty store: no bitmaps, nothing recorded, not attached, synced. */
int store_format(struct medium *medium, const struct store_geometry *geometry, const char *identity,
                 struct failure *why);

/*
 * Reads it: the catalogue, every delta, and after an unclean end what was armed, which is added
 * to the recording delta (its pages are ahead then).  Writes nothing, but syncs first: what is
 * read must not be lost later.  What was armed is still, in `armed`: the next record must hold
 * it too, but for regions whose pages have been written back by then.  -EBADMSG when it is no
 * store or damaged beyond what can be told apart; -ENOTSUP for another version.
 */
int store_open(struct store *store, struct medium *medium, struct store_recovery *ret_recovery,
               struct failure *why);

/* Before an opened store is written to otherwise: what was read from it is durable then, although a
 * sync may have failed before.  A power cut meanwhile changes nothing, as the same bytes go to
 * the same places. */
int store_affirm(struct store *store, struct failure *why);

/* Drops its deltas; the medium stays open. */
void store_close(struct store *store);

/*
 * Makes `next`, with the next sequence number, the catalogue, durably.  -EINVAL when it could
 * not be read back, -ENOMEM: nothing has changed then.  -EIO: it is not known whether the old or
 * the new one is on the medium.  The store must not be used on then, but for another commit, of
 * a catalogue that is right in either case; once one has succeeded all is known again.  (When
 * `unsure` is not set, the old one is certain.)
 */
int store_commit(struct store *store, const struct catalogue *next, struct failure *why);

/* Makes the record durable.  -EIO when that fails. */
int store_write_record(struct store *store, const struct store_record *record, struct failure *why);

/*
 * Writes these pages of the delta as they are now, without sync.  Of the recording delta only
 * such that the last record announced, and each once: for the next time, announce it again.
 * Deltas that are in no catalogue yet need not be announced.  A failed sync takes back all that
 * was written since the one before: those pages are ahead again as far as the caller goes, and
 * areas that are in no catalogue yet must be prepared anew.
 */
int store_write_pages(struct store *store, struct delta *delta, const uint32_t *pages, uint32_t n,
                      struct failure *why);
int store_sync(struct store *store, struct failure *why);

/* Room for a delta: clears, and allocates so that it cannot run out later.  Not yet in a
 * catalogue.  An error, -ENOSPC above all, breaks nothing. */
int store_prepare_area(struct store *store, uint32_t area, struct failure *why);

/* Gives the space of areas back, and drops their deltas; they are in no catalogue any more.
 * Errors cost space alone. */
void store_clear_areas(struct store *store, const struct area_set *areas);
