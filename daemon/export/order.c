/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One that conflicts with somebody before it waits for the latest of them, and looks again when
 * that one is gone: so a release wakes only those who may have a chance.
 *
 * Aligned ranges are sought by one that wants to be alone, and by nobody else.  Where there is none,
 * as usual, they are merely listed.
 */
#include "export/order.h"

#include <assert.h>
#include <stddef.h>
#include <sys/random.h>

#include "export/range-tree.h"

void order_init(struct order *order, bool shared)
{
	*order = (struct order) { .lock = PTHREAD_MUTEX_INITIALIZER, .shared = shared };
	/* Without it there still is an order, but clients could guess the weights. */
	(void) !getrandom(&order->random, sizeof order->random, GRND_NONBLOCK);
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

/* splitmix64 */
static uint32_t next_weight(struct order *order)
{
	uint64_t z = order->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (uint32_t) (z ^ z >> 31);
}

static void plant(struct order *order, struct range **top, struct range *range)
{
	range->weight = next_weight(order);
	range_tree_add(top, range);
}

static void list(struct order *order, struct range *range)
{
	range->fresh = true;
	range->previous = NULL;
	range->next = order->fresh;
	if (range->next)
		range->next->previous = range;
	order->fresh = range;
}

static void unlist(struct order *order, struct range *range)
{
	range->fresh = false;
	if (range->previous)
		range->previous->next = range->next;
	else
		order->fresh = range->next;
	if (range->next)
		range->next->previous = range->previous;
}

/* Once for each range, so this costs little whoever wants to be alone how often. */
static void plant_fresh(struct order *order)
{
	while (order->fresh) {
		struct range *range = order->fresh;

		unlist(order, range);
		plant(order, &order->aligned, range);
	}
}

/* Holds the range, or has it wait for the latest before it that is in its way. */
static bool hold_or_wait(struct order *order, struct range *range)
{
	struct range *blocker = range_tree_latest(order->alone, range, NULL, &order->n_steps);

	if (range->alone)
		blocker = range_tree_latest(order->aligned, range, blocker, &order->n_steps);
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
	bool held;

	assert(!range->held && !range->waiting && range->start < range->end);

	range->dependents = NULL;
	lock(order);
	range->number = ++order->n_taken;
	if (range->alone)
		plant_fresh(order);
	held = hold_or_wait(order, range);
	if (range->alone)
		plant(order, &order->alone, range);
	else
		list(order, range);
	unlock(order);
	return held;
}

static void leave(struct order *order, struct range *range)
{
	range->held = false;
	if (range->fresh)
		unlist(order, range);
	else
		range_tree_remove(range->alone ? &order->alone : &order->aligned, range);
}

/* Those who waited for `range` and hold theirs now, as a list; the others wait for another. */
static struct range *let_go_on(struct order *order, struct range *range)
{
	struct range *dependent = range->dependents, *next, *ready = NULL, **end = &ready;

	range->dependents = NULL;
	for (; dependent; dependent = next) {
		next = dependent->next_dependent;
		if (!hold_or_wait(order, dependent))
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
	leave(order, range);
	ready = let_go_on(order, range);
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
