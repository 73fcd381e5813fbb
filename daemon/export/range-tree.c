/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/range-tree.h"

#include <stddef.h>

#include "export/order.h"

static bool goes_before(const struct range *a, const struct range *b)
{
	return a->start != b->start ? a->start < b->start : a->number < b->number;
}

static void take_in(struct range *top, const struct range *below)
{
	if (!below)
		return;
	if (top->far < below->far)
		top->far = below->far;
	if (top->oldest > below->oldest)
		top->oldest = below->oldest;
	if (top->newest < below->newest)
		top->newest = below->newest;
}

static void sum_up(struct range *top)
{
	top->far = top->end;
	top->oldest = top->newest = top->number;
	take_in(top, top->left);
	take_in(top, top->right);
}

/* Two trees of which one is all before the other. */
static struct range *join(struct range *before, struct range *after)
{
	if (!before || !after)
		return before ? before : after;
	if (before->weight > after->weight) {
		before->right = join(before->right, after);
		sum_up(before);
		return before;
	}
	after->left = join(before, after->left);
	sum_up(after);
	return after;
}

static void split(struct range *top, const struct range *at, struct range **ret_before,
                  struct range **ret_after)
{
	if (!top) {
		*ret_before = *ret_after = NULL;
		return;
	}
	if (goes_before(top, at)) {
		split(top->right, at, &top->right, ret_after);
		*ret_before = top;
	} else {
		split(top->left, at, ret_before, &top->left);
		*ret_after = top;
	}
	sum_up(top);
}

static struct range **side_of(struct range *top, const struct range *range)
{
	return goes_before(range, top) ? &top->left : &top->right;
}

void range_tree_add(struct range **top, struct range *range)
{
	if (*top && (*top)->weight >= range->weight) {
		range_tree_add(side_of(*top, range), range);
		sum_up(*top);
		return;
	}
	split(*top, range, &range->left, &range->right);
	sum_up(range);
	*top = range;
}

void range_tree_remove(struct range **top, struct range *range)
{
	if (*top == range) {
		*top = join(range->left, range->right);
		return;
	}
	range_tree_remove(side_of(*top, range), range);
	sum_up(*top);
}

static bool is_later(const struct range *range, const struct range *best)
{
	return !best || range->number > best->number;
}

/* Whether one below may be what is looked for. */
static bool is_hopeful(const struct range *top, const struct range *range, const struct range *best)
{
	return top && top->far > range->start && top->oldest < range->number &&
	       (!best || top->newest > best->number);
}

struct range *range_tree_latest(struct range *top, const struct range *range, struct range *best,
                                uint64_t *steps)
{
	struct range *first, *second;

	++*steps;
	if (!is_hopeful(top, range, best))
		return best;
	if (top->start < range->end && top->end > range->start && top->number < range->number &&
	    is_later(top, best))
		best = top;
	first = top->left;
	second = top->start < range->end ? top->right : NULL;
	if (first && second && second->newest > first->newest) {
		first = second;
		second = top->left;
	}
	best = range_tree_latest(first, range, best, steps);
	return range_tree_latest(second, range, best, steps);
}
