/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/promptness.h"

#include "base/clock.h"
#include "export/device.h"

#define US 1000ull
#define PAUSE_FIRST (100 * 1000 * US)
#define PAUSE_MOST (60ull * 1000 * 1000 * US)

/* What another thread would cost, and what moving a page may take. */
#define PROMPT_BASE (20 * US)
#define PROMPT_PAGE (4 * US)

/* In one round. */
#define ROUND_MOST (1000 * US)

/* So slow that one such answer is enough: everybody else on the ring waits as long. */
#define STUCK (1000 * US)

/* One slow answer weighs as much as so many fast ones; so much debt ends it. */
#define SLOW_WEIGHT 16u
#define DEBT_MOST 128u

void promptness_init(struct promptness *p, const struct device *dev)
{
	*p = (struct promptness) { .possible = !dev->nowait, .pause = PAUSE_FIRST };
}

uint64_t promptness_begin(struct promptness *p, unsigned round)
{
	uint64_t t;

	if (!p->possible)
		return 0;
	if (p->round != round)
		p->spent = 0;
	p->round = round;
	if (p->spent > ROUND_MOST)
		return 0;
	t = monotonic_ns();
	return t < p->pause_until ? 0 : t;
}

void promptness_took(struct promptness *p, uint64_t began, uint32_t length)
{
	uint64_t t = monotonic_ns();

	p->spent += t - began;
	if (t - began <= PROMPT_BASE + length / 4096 * PROMPT_PAGE) {
		if (p->debt && --p->debt == 0)
			p->pause = PAUSE_FIRST;
		return;
	}
	p->debt = t - began > STUCK ? DEBT_MOST : p->debt + SLOW_WEIGHT;
	if (p->debt < DEBT_MOST)
		return;
	p->pause_until = t + p->pause;
	p->pause = 2 * p->pause < PAUSE_MOST ? 2 * p->pause : PAUSE_MOST;
	p->debt = DEBT_MOST - SLOW_WEIGHT;
}
