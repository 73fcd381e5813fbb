/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds out who of many ranges came last before another and shares a byte with it, without a look
 * at all of them.  For order.c only; nothing is allocated.
 *
 * A treap: sorted by where ranges start, a heap by their weights, which are random, so that it
 * is flat whatever a client asks for.  Each range knows of itself and those below it how far they
 * reach and when they came.
 */
#pragma once

#include <stdint.h>

struct range;

/* `top` is NULL for a tree without ranges.  The range has its place, number and weight. */
void range_tree_add(struct range **top, struct range *range);
void range_tree_remove(struct range **top, struct range *range);

/* The latest that came before `range` and overlaps it, if it is later than `best` (NULL for none);
 * else `best`.  Adds to *steps how many were looked at. */
struct range *range_tree_latest(struct range *top, const struct range *range, struct range *best,
                                uint64_t *steps);
