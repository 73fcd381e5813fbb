/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block device or regular file behind an export: how it is opened, what it can do.
 *
 * A block device is opened O_EXCL, so that what is mounted or in use cannot be exported by
 * accident; a regular file is locked with open file description locks on the bytes
 * that QEMU uses (see lock.c).  Both O_DIRECT unless told otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/device-identity.h"
#include "base/export-settings.h"
#include "base/failure.h"

struct device {
	char *path;                     /* as configured */
	int fd;                         /* all I/O; O_DIRECT if `direct` */
	int tail_fd;                    /* buffered, for the unaligned tail; -1 without one */
	bool is_block;
	bool never_writes;              /* by settings, or by the device itself at the start */
	bool direct;
	bool rotational;
	bool write_cache;               /* volatile: a flush is needed to reach media */
	bool can_discard;

	/* Set by the main thread, while loops read them: see look.h. */
	_Atomic uint64_t size;          /* bytes to export; a multiple of 512 */
	_Atomic uint64_t direct_size;   /* bytes that `fd` reaches with whole sectors */
	_Atomic bool read_only;         /* `never_writes`, or the device is so at present */

	/* The main thread's: what the kernel said last. */
	uint64_t size_seen;
	bool read_only_seen;

	uint32_t sector;                /* bytes: the alignment that I/O on `fd` needs; 1 for none */
	uint32_t physical_block;        /* bytes */
	uint32_t optimal_io;            /* bytes, or 0 */
	uint64_t discard_max;           /* bytes, or 0 */

	bool nowait;                    /* takes I/O that must not block (RWF_NOWAIT) */

	/* Set, and read, by any ring: fallocate(2) has been refused that way. */
	_Atomic bool no_punch, no_zero_range;

	uint64_t sequence;              /* the disk sequence number; 0 without one */
	char identity[DEVICE_IDENTITY_SIZE];    /* the same thing behind another path has the same */

	_Atomic unsigned n_punched;     /* times that something may have made a hole */
};

/* The last stretch of a file known to be data, so that reads there need no look-up.  Each
 * ring has its own; whatever may punch a hole makes all of them stale. */
struct known_data {
	uint64_t start, end;
	unsigned n_punched;
};

/* Opens and locks `settings->device`.  On failure nothing is held. */
int device_open(struct device *dev, const struct export_settings *settings, struct failure *why);
void device_close(struct device *dev);

/* device-size.c.  For device_open(): finds out the size, and opens the tail by `path_fd`. */
int device_measure(struct device *dev, int path_fd, struct failure *why);

/* Whether the size, in whole 512 bytes, is not that of the last look, nor the device's. */
bool device_size_has_changed(struct device *dev, uint64_t *ret);

/* What is exported from now on: `size`, or what can be had of it. */
void device_resize(struct device *dev, uint64_t size);

/* Whether the kernel's word on writing is not that of the last look: then it is in
 * `read_only_seen`, and in `read_only` if that is possible. */
bool device_read_only_has_changed(struct device *dev);

/* Another medium or file is behind the same device: the disk sequence number is another. */
bool device_was_replaced(const struct device *dev);

/* After I/O that failed with `error` (an errno, or 0 to look without one): the device is not
 * there any more, and never will be again under this descriptor. */
bool device_vanished(const struct device *dev, int error);

/* The bytes at which QEMU's file locks begin: permissions in use, and permissions that
 * others must not have.  -errno with a sentence when somebody else's stand against ours. */
int device_lock(int fd, const char *path, bool writes, bool shared, struct failure *why);

/* What sits at [offset, end): data, or a hole that reads as zeroes.  Returns where this
 * stretch ends, at least offset + 1 and at most `end`.  Everything is data on what cannot tell. */
uint64_t device_extent(int fd, uint64_t offset, uint64_t end, bool *ret_hole);

/* The same, faster where a hole ends at `offset`; right everywhere. */
uint64_t device_extent_after_hole(int fd, uint64_t offset, uint64_t end, bool *ret_hole);

/* device_extent() for a read, by way of what is known. */
uint64_t device_read_extent(const struct device *dev, struct known_data *known, uint64_t offset,
                            uint64_t end, bool *ret_hole);
void device_note_punch(struct device *dev);

/* Whole bytes to the sector below or above. */
static inline uint64_t sector_down(const struct device *dev, uint64_t at)
{
	return at & ~(uint64_t) (dev->sector - 1);
}

static inline uint64_t sector_up(const struct device *dev, uint64_t at)
{
	return sector_down(dev, at + dev->sector - 1);
}
