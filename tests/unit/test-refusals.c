/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A log that lists some refusals and counts the others. */
#include "check.h"

#include "base/refusals.h"

static struct peer host(uint32_t number)
{
	struct peer p = { .kind = PEER_IPV4 };

	memcpy(p.address, &number, sizeof number);
	return p;
}

static struct {
	struct peer source;
	bool is_one;
	uint64_t n;
} told[REFUSALS_SOURCES + 1];
static unsigned n_told;

static void tell(const struct peer *source, uint64_t n)
{
	told[n_told].is_one = source;
	if (source)
		told[n_told].source = *source;
	told[n_told++].n = n;
}

static void finish(struct refusals *r)
{
	n_told = 0;
	refusals_tell(r, tell);
	CHECK_EQ("nothing is left", refusals_due(r), UINT64_MAX);
}

/* How many of `n` are listed. */
static unsigned refuse_some(struct refusals *r, struct peer source, unsigned n)
{
	unsigned listed = 0;

	for (unsigned i = 0; i < n; i++)
		listed += refusals_may_list(r, &source, 1000);
	return listed;
}

TEST(a_few_are_listed_and_nothing_is_told)
{
	static struct refusals r;

	CHECK_EQ("", refusals_due(&r), UINT64_MAX);
	CHECK_EQ("", refuse_some(&r, host(1), REFUSALS_OF_ONE), REFUSALS_OF_ONE);
	CHECK_EQ("", refusals_due(&r), 1000 + REFUSALS_USEC);
	finish(&r);
	CHECK_EQ("", n_told, 0);
}

TEST(of_one_source_more_are_counted_and_others_are_listed)
{
	static struct refusals r;
	struct peer loud = host(1), quiet = host(2);

	CHECK_EQ("", refuse_some(&r, loud, 5000), REFUSALS_OF_ONE);
	CHECK_EQ("", refuse_some(&r, quiet, 3), 3);
	finish(&r);
	CHECK_EQ("", n_told, 1);
	CHECK(told[0].is_one && peer_equal(&told[0].source, &loud));
	CHECK_EQ("", told[0].n, 5000 - REFUSALS_OF_ONE);
	CHECK_EQ("it begins anew", refuse_some(&r, loud, 5), 5);
	finish(&r);
	CHECK_EQ("", n_told, 0);
}

TEST(of_many_sources_all_are_counted)
{
	static struct refusals r;
	unsigned listed = 0;
	uint64_t n = 0;

	for (uint32_t i = 0; i < 4 * REFUSALS_SOURCES; i++)
		listed += refuse_some(&r, host(i), 2);
	CHECK_EQ("", listed, REFUSALS_OF_ALL);
	finish(&r);
	for (unsigned i = 0; i < n_told; i++)
		n += told[i].n;
	CHECK_EQ("", n + listed, 8 * REFUSALS_SOURCES);
	CHECK(!told[n_told - 1].is_one);
	CHECK_EQ("", told[n_told - 1].n, 6 * REFUSALS_SOURCES);
}
