/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of pages that are, or may be, damaged on the medium: to be written before anything else.
 */
#pragma once

#include "dirty/store.h"

/* A page of the recording delta, with PAGE_SLOT_BIT if both of its slots are.  0, -ENOMEM. */
int mending_add(struct store_mending *mending, struct delta *delta, uint32_t page);

/* Drops the others; false when none is left. */
bool mending_keep_both(struct store_mending *mending);
void mending_clear(struct store_mending *mending);
