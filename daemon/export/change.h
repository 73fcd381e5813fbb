/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every change of the device does first and last: it takes its turn among those that share a
 * sector (order.h), and is noted in the bitmaps (dirty/tracker.h).
 */
#pragma once

#include <stdbool.h>

#include "export/order.h"

struct export;
struct loop;

/*
 * True: the range is held and noted.  False: it waits, and range->granted will be called in the
 * loop's thread.  Either way the change must not be made, and fails, where range_refused() says
 * so.  Sets range->home; start, end, alone and granted are the caller's.
 */
bool change_take(struct loop *loop, struct range *range);

/* A range that is not held is left as it is.  May call `granted` of others. */
void change_give(struct loop *loop, struct range *range);

/* An errno, or 0: bitmaps cannot be kept, and OnBitmapError=stop. */
static inline int range_refused(const struct range *range)
{
	return range->change.refused;
}
