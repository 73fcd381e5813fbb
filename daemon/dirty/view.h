/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What one bitmap shows: the union of some deltas, or everything where it has lost track.
 *
 * A view is never changed; a bitmap that comes to show something else gets a new one.
 * Counted references, as deltas: any thread may hold and read it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dirty/delta.h"

struct view {
	_Atomic unsigned n_refs;
	bool everything;                /* gap, lost: all of it is dirty */
	unsigned granule_shift;         /* a granule is 1 << granule_shift bytes */
	uint64_t size;                  /* bytes of the device */
	unsigned n_deltas;
	struct delta *deltas[];         /* each with a reference of ours */
};

/* Takes references of its own.  NULL when memory is short. */
struct view *view_new(bool everything, unsigned granule_shift, uint64_t size,
                      struct delta *const *deltas, unsigned n_deltas);
struct view *view_ref(struct view *view);
void view_unref(struct view *view);

/* Whether the byte at `at` is dirty, and in *ret_end how far that goes, at most to `end`.
 * at < end, both within the device.  Granules end at the device's end. */
bool view_extent(const struct view *view, uint64_t at, uint64_t end, uint64_t *ret_end);

/* Bytes; the last granule counts as far as the device goes. */
uint64_t view_dirty_bytes(const struct view *view);
