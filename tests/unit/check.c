/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

static struct test *tests;
static struct test **last = &tests;
static bool failed;             /* in the test that runs */

void test_add(struct test *test)
{
	*last = test;
	last = &test->next;
}

void check_that(const char *file, int line, bool held, const char *what)
{
	if (held)
		return;
	failed = true;
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
}

void check_equal(const char *file, int line, const char *where, const char *what, long long got,
                 long long want)
{
	if (got == want)
		return;
	failed = true;
	fprintf(stderr, "%s:%d: %s: %s is %lld (%#llx), not %lld (%#llx)\n", file, line, where,
	        what, got, (unsigned long long) got, want, (unsigned long long) want);
}

void check_text(const char *file, int line, const char *where, const char *got, const char *want)
{
	if (got == want || (got && want && strcmp(got, want) == 0))
		return;
	failed = true;
	fprintf(stderr, "%s:%d: %s: got \"%s\", not \"%s\"\n", file, line, where,
	        got ? got : "(null)", want ? want : "(null)");
}

int main(void)
{
	unsigned n_passed = 0;
	unsigned n_failed = 0;

	for (struct test *test = tests; test; test = test->next) {
		failed = false;
		test->run();
		if (failed)
			fprintf(stderr, "FAILED: %s\n", test->name);
		*(failed ? &n_failed : &n_passed) += 1;
	}
	printf("%u passed, %u failed\n", n_passed, n_failed);
	return n_failed ? 1 : 0;
}
