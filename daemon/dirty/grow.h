/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole store files: made, and made larger.  Each appears under its name complete, or not at all.
 */
#pragma once

#include <stdbool.h>

#include "dirty/store.h"

/* Makes an empty one.  Nobody else's is replaced: -EEXIST. */
int store_file_make(const char *path, const struct store_geometry *geometry, const char *identity,
                    struct failure *why);

/*
 * Where the store on `medium`, the file at `path`, was made for a device smaller than `size`, replaces
 * the file by one for that size: what is new is dirty in all deltas, and so is what was armed.  What
 * was found in the old one is in `ret_found` then, for store_recovery_add().
 * -EBADMSG: not a store, or damaged.
 */
int store_grow(const char *path, struct medium *medium, uint64_t size, bool *ret_grew,
               struct store_recovery *ret_found, struct failure *why);

/* To what was found in the new one.  Takes the regions over: they are dirty, and armed in neither. */
void store_recovery_add(struct store_recovery *found, struct store_recovery *before);
