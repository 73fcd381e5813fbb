/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a store holds, as one value: deltas, bitmaps, whose device it is, how it was left.
 *
 * It is written as a whole, so that whoever reads it after a crash has the old or the new one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/group-file.h"

#define BITMAP_NAME_MAX 255u            /* bytes of UTF-8 */
#define BITMAP_REASON_MAX 159u          /* bytes */
#define BITMAPS_MAX 60u
#define AREAS_MAX 192u
#define NO_AREA UINT32_MAX

enum bitmap_state {
	BITMAP_RECORDING,
	BITMAP_DISABLED,                /* shows what it had; a change meanwhile makes it a gap */
	BITMAP_FROZEN,                  /* a past stretch of time: complete, and never changes */
	BITMAP_GAP,                     /* something changed that it has not seen: all dirty */
	BITMAP_LOST,                    /* the store failed, or was another's: all dirty */
};

/* "recording" and so on. */
const char *bitmap_state_word(enum bitmap_state state);

/* Of areas; a bit each. */
struct area_set {
	uint64_t bits[AREAS_MAX / 64];
};

struct bitmap_entry {
	char name[BITMAP_NAME_MAX + 1];
	enum bitmap_state state;
	bool checkpoint;                /* made as one; the same otherwise */
	bool follows;                   /* the recording delta is part of it */
	bool pending;                   /* a checkpoint of a group that is not decided: nobody sees it */
	char group[GROUP_ID_SIZE];      /* which; "" otherwise */
	bool watches;                   /* disabled: the recording delta is part of what it missed */
	uint64_t created;               /* microseconds, real time */
	uint64_t state_since;
	char reason[BITMAP_REASON_MAX + 1];     /* of the state; may be empty */
	struct area_set shows;          /* deltas without the recording one */
	struct area_set missed;         /* deltas that a disabled one has missed, likewise */
};

struct delta_entry {
	uint64_t id;                    /* 0: the area is free */
};

/* What tells whether somebody else changed the device while we did not look. */
struct device_trace {
	bool known;
	bool machine_stopped;           /* it was left as the machine stopped */
	uint8_t boot_id[16];
	uint64_t disk_sequence;         /* 0: none */
	uint64_t sectors_written, sectors_discarded;    /* block devices: counters of the kernel */
	int64_t changed_sec;            /* regular files: mtime and ctime, whichever is later */
	uint32_t changed_nsec;
	uint64_t inode;
};

struct catalogue {
	uint64_t sequence;              /* counts the times it was written */
	bool attached;                  /* in use; or was, when the machine or process died */
	uint64_t attached_at;           /* microseconds, real time */
	char identity[96];              /* of the device */
	uint64_t device_size;           /* bytes */
	struct device_trace trace;      /* as it was left */
	uint64_t next_id;               /* of deltas */
	uint32_t recording;             /* area of the recording delta, or NO_AREA */
	uint64_t unclean_ends;          /* how often it was found attached */
	uint64_t over_reported;         /* bytes: granules that armed regions made dirty, the last time */
	struct delta_entry deltas[AREAS_MAX];
	unsigned n_bitmaps;
	struct bitmap_entry bitmaps[BITMAPS_MAX];
};

/* Bytes that hold any catalogue, encoded; whole 4096-byte blocks. */
#define CATALOGUE_SIZE (16u * 4096u)

/* Encodes with its checksum; returns the length in bytes, padded with zeroes to whole blocks. */
size_t catalogue_encode(const struct catalogue *catalogue, const uint8_t uuid[16],
                        uint8_t out[CATALOGUE_SIZE]);

/* NULL, or in words what is wrong with it: then *ret is of no use.  Everything is checked: that
 * it is this store's, ids, areas, names, UTF-8. */
const char *catalogue_decode(const uint8_t in[CATALOGUE_SIZE], const uint8_t uuid[16],
                             struct catalogue *ret);

struct bitmap_entry *catalogue_find(struct catalogue *catalogue, const char *name);

/* The lowest free area, or NO_AREA. */
uint32_t catalogue_free_area(const struct catalogue *catalogue);

/* Frees the areas that nobody shows, misses or records into; returns which those were. */
struct area_set catalogue_sweep(struct catalogue *catalogue);

static inline bool area_in(const struct area_set *set, uint32_t area)
{
	return set->bits[area / 64] >> (area % 64) & 1;
}

static inline void area_put(struct area_set *set, uint32_t area)
{
	set->bits[area / 64] |= UINT64_C(1) << (area % 64);
}

static inline void area_drop(struct area_set *set, uint32_t area)
{
	set->bits[area / 64] &= ~(UINT64_C(1) << (area % 64));
}
