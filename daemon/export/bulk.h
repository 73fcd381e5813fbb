/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zeroing and discarding may keep the device busy for seconds a step, and the threads that do
 * that serve who comes first.  So a loop has only a few steps under way at once; the others wait
 * here, in nobody's way, and get on connection by connection, a step each.
 *
 * A step takes its place first and its range (change.h) then: who holds a range never waits
 * for a place.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct slot;

/* Two large steps, one at work and one for the device to go on with, as the kernel does them one
 * after another; or several small ones, which are over before a thread could be woken for the next.
 * No engine has fewer than twice as many threads for what blocks. */
#define BULK_PLACES 8u
#define BULK_PLACES_LARGE 4u
#define BULK_LARGE (1u << 20)           /* bytes, from which on a step counts as large */

/* Zero is a valid start. */
struct bulk {
	struct conn *first, *last;      /* with slots that wait, in line */
	unsigned n_taken;               /* places */
	bool serving;
};

/* Calls `step` when there is a place for so many bytes, perhaps at once; until then it counts in
 * n_io. */
void bulk_begin(struct slot *slot, uint64_t size, void (*step)(struct slot *slot));

/* The step is over: the next ones may begin in here. */
void bulk_end(struct slot *slot);
