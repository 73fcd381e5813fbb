/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/change.h"

#include <stddef.h>

#include "base/attr.h"
#include "export/export.h"
#include "export/loop.h"

/* The loop's thread again. */
static void on_letter(struct letter *letter)
{
	struct range *range = container_of(letter, struct range, letter);

	range->go(range);
}

/* The thread that keeps bitmaps. */
static void on_noted(struct change *change)
{
	struct range *range = container_of(change, struct range, change);

	range->letter.open = on_letter;
	mailbox_post(range->home, &range->letter);
}

static struct export *export_of_range(const struct range *range)
{
	return container_of(range->home, struct loop, ring.mail)->export;
}

/* Its turn has come: is it noted at once? */
static bool note(struct tracker *tracker, struct range *range)
{
	range->change.start = range->start;
	range->change.end = range->end;
	range->change.granted = on_noted;
	return !tracker || tracker_begin(tracker, &range->change);
}

static void on_turn(struct range *range)
{
	if (note(export_of_range(range)->tracker, range))
		range->go(range);
}

bool change_take(struct loop *loop, struct range *range)
{
	struct export *export = loop->export;

	range->home = &loop->ring.mail;
	range->go = range->granted;
	range->granted = on_turn;
	range->change = (struct change) { .lane = (unsigned) (loop - export->loops) };
	return order_take(&export->order, range) && note(export->tracker, range);
}

void change_give(struct loop *loop, struct range *range)
{
	if (!range->held)
		return;
	if (range->change.entered)
		tracker_end(loop->export->tracker, &range->change);
	order_give(&loop->export->order, range);
}
