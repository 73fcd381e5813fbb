/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that loses power, as a medium for stores.
 *
 * It keeps what was synced, and the 512-byte sectors that were written since, in order.  An
 * image is what a power cut may leave: the synced part with some of those sectors.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dirty/medium.h"

#define SECTOR 512u

struct sector {
	uint32_t number;
	uint8_t bytes[SECTOR];
};

struct disk {
	struct medium medium;
	size_t size;
	uint8_t *synced;                /* as the platter has it */
	uint8_t *cached;                /* as whoever reads sees it */
	uint8_t *used;                  /* by 4096 bytes: may be other than zero */
	struct sector *pending;
	size_t n_pending, room;
	bool dead;                      /* the power is out: nothing works any more */
	bool quiet;                     /* nobody is told of writes and syncs */
	bool fail_sync;                 /* the next one fails, and loses what it likes */
	bool fail_write;                /* the next one fails, and does a part */
	bool lies;                      /* one has: what is read may not be on the platter */
	uint64_t n_failed;              /* syncs */
	uint64_t random;
	void (*after_write)(struct disk *disk);         /* each is a moment to lose power at */
	void (*after_sync)(struct disk *disk);
	void *userdata;
};

void disk_init(struct disk *disk, size_t size, uint64_t seed);
void disk_deinit(struct disk *disk);

/* The next of its random numbers, below `end`. */
uint64_t disk_random(struct disk *disk, uint64_t end);

/* What a power cut leaves of what is pending. */
enum survivors { SURVIVES_NOTHING, SURVIVES_ALL, SURVIVES_SOME };

struct image {
	struct medium medium;
	const struct disk *disk;
	uint8_t *chosen;                /* by pending sector */
	size_t room;
};

/* Until the disk is written to again. */
void image_take(struct image *image, struct disk *disk, enum survivors survivors);
void image_deinit(struct image *image);

/* The power is back, and the disk holds what the image has. */
void disk_become(struct disk *disk, const struct image *image);
