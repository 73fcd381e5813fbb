/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How old the oldest operation is, told by turns. */
#include "check.h"
#include "export/age.h"

TEST(without_operations_nothing_is_old)
{
	struct ages ages = { 0 };

	for (uint64_t time = 1; time < 100; time++)
		CHECK_EQ("", ages_turn(&ages, time), 0);
}

TEST(one_that_has_just_begun_is_not_old)
{
	struct ages ages = { 0 };
	uint8_t turn = ages_begin(&ages);

	CHECK_EQ("", ages_turn(&ages, 10), 0);
	ages_end(&ages, turn);
	CHECK_EQ("", ages_turn(&ages, 20), 0);
}

TEST(one_that_stays_is_as_old_as_the_end_of_its_turn)
{
	struct ages ages = { 0 };
	uint8_t turn = ages_begin(&ages);

	(void) ages_turn(&ages, 10);
	for (uint64_t time = 20; time < 1000; time += 10)
		CHECK_EQ("", ages_turn(&ages, time), 10);
	ages_end(&ages, turn);
	CHECK_EQ("", ages_turn(&ages, 1000), 0);
}

/* Younger ones come and go meanwhile, and some stay; the oldest is what is told. */
TEST(the_oldest_is_told_however_many_follow)
{
	struct ages ages = { 0 };
	uint8_t oldest = ages_begin(&ages), younger;

	(void) ages_turn(&ages, 10);
	younger = ages_begin(&ages);
	for (uint64_t time = 20; time < 1000; time += 10) {
		uint8_t short_lived = ages_begin(&ages);

		CHECK_EQ("", ages_turn(&ages, time), 10);
		ages_end(&ages, short_lived);
	}
	ages_end(&ages, oldest);
	CHECK_EQ("", ages_turn(&ages, 1000), 20);
	ages_end(&ages, younger);
	CHECK_EQ("", ages_turn(&ages, 1010), 0);
	for (uint64_t time = 1020; time < 1200; time += 10)
		CHECK_EQ("", ages_turn(&ages, time), 0);
}
