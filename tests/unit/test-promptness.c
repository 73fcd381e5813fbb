/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices that answer at once are asked in place; others, and those that stop doing so, are not. */
#include <time.h>

#include "check.h"
#include "export/device.h"
#include "export/promptness.h"

#define MS (1000u * 1000u)

static unsigned n_round;

/* A clock by which everything here takes a microsecond, however busy the machine is. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	static long now;

	(void) clock;
	now += 1000;
	*ret = (struct timespec) { .tv_sec = 1000 + now / 1000000000, .tv_nsec = now % 1000000000 };
	return 0;
}

static const struct device without_nowait = { .nowait = false };

TEST(a_device_with_nowait_goes_by_way_of_the_ring)
{
	struct device dev = { .nowait = true };
	struct promptness p;

	promptness_init(&p, &dev);
	CHECK_EQ("", promptness_begin(&p, n_round++), 0);
}

TEST(one_without_is_asked_in_place_as_long_as_it_is_fast)
{
	struct promptness p;

	promptness_init(&p, &without_nowait);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t began = promptness_begin(&p, n_round++);

		CHECK(began != 0);
		promptness_took(&p, began, UINT32_MAX);         /* time enough for any length */
	}
	CHECK(promptness_begin(&p, n_round++) != 0);
}

TEST(one_answer_that_takes_a_millisecond_makes_a_pause)
{
	struct promptness p;
	uint64_t began;

	promptness_init(&p, &without_nowait);
	began = promptness_begin(&p, n_round++);
	CHECK(began != 0);
	promptness_took(&p, began - 2 * MS, 4096);
	CHECK_EQ("paused", promptness_begin(&p, n_round++), 0);
	p.pause_until = 0;
	CHECK(promptness_begin(&p, n_round++) != 0);
}

TEST(slow_answers_add_up_and_fast_ones_pay_them_off)
{
	struct promptness p;

	promptness_init(&p, &without_nowait);
	for (unsigned i = 0; i < 100; i++) {
		promptness_took(&p, promptness_begin(&p, n_round++) - MS / 2, 4096);
		for (unsigned k = 0; k < 16; k++)
			promptness_took(&p, promptness_begin(&p, n_round++), UINT32_MAX);
	}
	CHECK(promptness_begin(&p, n_round++) != 0);
	for (unsigned i = 0; i < 8; i++)
		promptness_took(&p, promptness_begin(&p, n_round++) - MS / 2, 4096);
	CHECK_EQ("paused", promptness_begin(&p, n_round++), 0);
}

TEST(a_round_has_a_limit)
{
	struct promptness p;
	unsigned n = 0;

	promptness_init(&p, &without_nowait);
	for (; n < 100; n++) {
		uint64_t began = promptness_begin(&p, 0);

		if (!began)
			break;
		promptness_took(&p, began - MS / 10, UINT32_MAX);
	}
	CHECK(n > 5 && n < 20);
	CHECK(promptness_begin(&p, 1) != 0);
}

TEST(each_pause_is_longer_until_the_device_is_fast_again)
{
	struct promptness p;
	uint64_t first, second;

	promptness_init(&p, &without_nowait);
	first = p.pause;
	promptness_took(&p, promptness_begin(&p, n_round++) - 2 * MS, 4096);
	second = p.pause;
	CHECK_EQ("doubled", second, 2 * first);
	p.pause_until = 0;
	for (unsigned i = 0; i < 128; i++)
		promptness_took(&p, promptness_begin(&p, n_round++), UINT32_MAX);
	CHECK_EQ("forgotten", p.pause, first);
}
