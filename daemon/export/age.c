/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/age.h"

uint64_t ages_turn(struct ages *ages, uint64_t time)
{
	unsigned next = (ages->now + 1) % AGE_TURNS;
	uint64_t oldest = 0;

	for (unsigned i = 0; i < AGE_TURNS; i++)
		if (i != ages->now && ages->n[i] && (!oldest || ages->ended[i] < oldest))
			oldest = ages->ended[i];
	/* While the oldest turn is not over there is no room for another: this one goes on. */
	if (ages->n[next] == 0) {
		ages->ended[ages->now] = time;
		ages->ended[next] = 0;
		ages->now = next;
	}
	return oldest;
}
