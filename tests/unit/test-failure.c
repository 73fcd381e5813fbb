/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>

#include "base/failure.h"
#include "base/text.h"

TEST(a_failure_carries_its_code_and_cause)
{
	struct failure why = { 0 };

	CHECK_EQ("", fail(&why, ENOENT, "cannot open %s", "/dev/x"), -ENOENT);
	CHECK_EQ("", why.code, ENOENT);
	CHECK_STR("", why.text, "cannot open /dev/x: No such file or directory");
}

TEST(a_plain_failure_has_no_errno_text)
{
	struct failure why = { 0 };

	CHECK_EQ("", fail_plain(&why, EINVAL, "not a size"), -EINVAL);
	CHECK_STR("", why.text, "not a size");
}

TEST(steps_stand_before_the_cause)
{
	struct failure why = { 0 };

	(void) fail_plain(&why, EBUSY, "in use");
	CHECK_EQ("", fail_while(&why, "cannot lock %s", "/dev/x"), -EBUSY);
	CHECK_EQ("", fail_while(&why, "export a"), -EBUSY);
	CHECK_STR("", why.text, "export a: cannot lock /dev/x: in use");
}

TEST(a_cause_too_long_is_cut_and_a_step_too_long_is_dropped)
{
	struct failure why = { 0 };
	char before[FAILURE_TEXT_SIZE];
	char flood[2 * FAILURE_TEXT_SIZE];

	memset(flood, 'x', sizeof flood - 1);
	flood[sizeof flood - 1] = '\0';

	CHECK_EQ("", fail(&why, EIO, "%s", flood), -EIO);
	CHECK_EQ("", strlen(why.text), sizeof why.text - 1);
	memcpy(before, why.text, sizeof before);
	CHECK_EQ("", fail_while(&why, "step"), -EIO);
	CHECK_STR("", why.text, before);
}

TEST(a_failure_is_cut_between_characters)
{
	for (size_t before = 0; before < 3; before++) {
		struct failure why = { 0 };
		char flood[2 * FAILURE_TEXT_SIZE] = "xx";
		size_t len = before;

		for (; len + 3 < sizeof flood; len += 3)
			memcpy(flood + len, "\xe2\x82\xac", 4);
		(void) fail_plain(&why, EIO, "%s", flood);
		CHECK(is_utf8(span_of(why.text)));
		CHECK(!strstr(why.text, "\xef\xbf\xbd"));
		CHECK(strlen(why.text) > FAILURE_TEXT_SIZE - 4);
	}
}

TEST(bytes_that_are_no_text_are_replaced_in_causes_and_in_steps)
{
	struct failure why = { 0 };

	(void) fail_plain(&why, EIO, "cannot read \xff.conf");
	(void) fail_while(&why, "%.3s", "a\xe2\x82\xac");
	CHECK_STR("", why.text, "a\xef\xbf\xbd\xef\xbf\xbd: cannot read \xef\xbf\xbd.conf");
}

/* Every length of step around the limit: kept whole or dropped whole. */
TEST(steps_fit_or_are_dropped)
{
	for (size_t len = FAILURE_TEXT_SIZE - 12; len < FAILURE_TEXT_SIZE + 4; len++) {
		struct failure why = { 0 };
		char step[FAILURE_TEXT_SIZE + 8] = "";
		size_t whole = len + strlen(": cause");

		memset(step, 's', len);
		(void) fail_plain(&why, EIO, "cause");
		(void) fail_while(&why, "%s", step);
		CHECK_EQ("length", strlen(why.text),
		         whole < FAILURE_TEXT_SIZE ? whole : strlen("cause"));
	}
}
