/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/order.h"

#include <assert.h>
#include <stddef.h>

void order_init(struct order *order)
{
	*order = (struct order) { 0 };
	order->waiting_end = &order->waiting;
}

static bool conflict(const struct range *a, const struct range *b)
{
	return (a->alone || b->alone) && a->start < b->end && b->start < a->end;
}

/* `until`: look only at those that came before it. */
static bool blocked(const struct order *order, const struct range *range, const struct range *until)
{
	for (const struct range *r = order->held; r; r = r->next)
		if (conflict(r, range))
			return true;
	for (const struct range *r = order->waiting; r != until; r = r->next)
		if (conflict(r, range))
			return true;
	return false;
}

static void hold(struct order *order, struct range *range)
{
	range->held = true;
	range->waiting = false;
	range->prev = NULL;
	range->next = order->held;
	if (range->next)
		range->next->prev = range;
	order->held = range;
}

bool order_take(struct order *order, struct range *range)
{
	assert(!range->held && !range->waiting && range->start < range->end);

	/* The usual case: nobody needs a range alone, and nothing has to be compared. */
	if (range->alone)
		order->n_alone++;
	if (order->n_alone == 0 || !blocked(order, range, NULL)) {
		hold(order, range);
		return true;
	}
	range->waiting = true;
	range->next = NULL;
	*order->waiting_end = range;
	order->waiting_end = &range->next;
	return false;
}

/* Takes the first that is not blocked any more off the queue, or NULL. */
static struct range *next_ready(struct order *order)
{
	for (struct range **at = &order->waiting; *at; at = &(*at)->next) {
		struct range *r = *at;

		if (blocked(order, r, r))
			continue;
		*at = r->next;
		if (!*at)
			order->waiting_end = at;
		return r;
	}
	return NULL;
}

void order_give(struct order *order, struct range *range)
{
	struct range *r;

	if (!range->held)
		return;
	range->held = false;
	if (range->alone)
		order->n_alone--;
	if (range->prev)
		range->prev->next = range->next;
	else
		order->held = range->next;
	if (range->next)
		range->next->prev = range->prev;

	while (order->waiting && (r = next_ready(order))) {
		hold(order, r);
		r->granted(r);
	}
}
