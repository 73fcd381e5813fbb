/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranges stand in a line, as they came.  One that conflicts with somebody before it waits for the
 * latest of them alone, and looks again when that one is gone: so a release wakes only
 * those who may have a chance.
 */
#include "export/order.h"

#include <assert.h>
#include <stddef.h>

void order_init(struct order *order, bool shared)
{
	*order = (struct order) { .lock = PTHREAD_MUTEX_INITIALIZER, .shared = shared };
}

static void lock(struct order *order)
{
	if (order->shared)
		pthread_mutex_lock(&order->lock);
}

static void unlock(struct order *order)
{
	if (order->shared)
		pthread_mutex_unlock(&order->lock);
}

static bool conflict(const struct range *a, const struct range *b)
{
	return (a->alone || b->alone) && a->start < b->end && b->start < a->end;
}

/* Holds the range, or has it wait for the latest before it that is in its way. */
static bool hold_or_wait(struct range *range)
{
	struct range *blocker = range->earlier;

	while (blocker && !conflict(blocker, range))
		blocker = blocker->earlier;
	range->held = !blocker;
	range->waiting = blocker != NULL;
	if (blocker) {
		range->next_dependent = blocker->dependents;
		blocker->dependents = range;
	}
	return range->held;
}

bool order_take(struct order *order, struct range *range)
{
	bool held = true;

	assert(!range->held && !range->waiting && range->start < range->end);

	range->dependents = NULL;
	range->later = NULL;
	lock(order);
	range->earlier = order->last;
	if (range->earlier)
		range->earlier->later = range;
	order->last = range;
	order->n_alone += range->alone;

	/* The usual case: nobody needs a range alone, and nothing has to be compared. */
	if (order->n_alone == 0)
		range->held = true;
	else
		held = hold_or_wait(range);
	unlock(order);
	return held;
}

static void unlink_range(struct order *order, struct range *range)
{
	range->held = false;
	order->n_alone -= range->alone;
	if (range->earlier)
		range->earlier->later = range->later;
	if (range->later)
		range->later->earlier = range->earlier;
	else
		order->last = range->earlier;
}

/* Those who waited for `range` and hold theirs now, as a list; the others wait for another. */
static struct range *let_go_on(struct range *range)
{
	struct range *dependent = range->dependents, *next, *ready = NULL, **end = &ready;

	range->dependents = NULL;
	for (; dependent; dependent = next) {
		next = dependent->next_dependent;
		if (!hold_or_wait(dependent))
			continue;
		dependent->next_dependent = NULL;
		*end = dependent;
		end = &dependent->next_dependent;
	}
	return ready;
}

static void on_letter(struct letter *letter)
{
	struct range *range = container_of(letter, struct range, letter);

	range->granted(range);
}

void order_give(struct order *order, struct range *range)
{
	struct mailbox *home = range->home;
	struct range *ready, *next;

	if (!range->held)
		return;
	lock(order);
	unlink_range(order, range);
	ready = let_go_on(range);
	unlock(order);

	/* The range itself may be gone as soon as one of them goes on. */
	for (; ready; ready = next) {
		next = ready->next_dependent;
		if (ready->home == home) {
			ready->granted(ready);
			continue;
		}
		ready->letter.open = on_letter;
		mailbox_post(ready->home, &ready->letter);
	}
}
