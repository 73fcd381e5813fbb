/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>

#include "base/access.h"

#define NONE 0
#define READ (ACCESS_LIST | ACCESS_READ)
#define BOTH (ACCESS_LIST | ACCESS_READ | ACCESS_WRITE)

/* Peers as format_peer() writes them. */
static const struct {
	const char *rules;
	const char *peer;
	uint8_t want;
} lookups[] = {
	/* nothing said: this machine alone */
	{ ACCESS_DEFAULT, "127.0.0.1:4711", BOTH },
	{ ACCESS_DEFAULT, "127.255.255.255:1", BOTH },
	{ ACCESS_DEFAULT, "[::1]:4711", BOTH },
	{ ACCESS_DEFAULT, "[::ffff:127.0.0.1]:4711", BOTH },
	{ ACCESS_DEFAULT, "unix:pid=1,uid=1000", BOTH },
	{ ACCESS_DEFAULT, "unix", BOTH },
	{ ACCESS_DEFAULT, "128.0.0.1:4711", NONE },
	{ ACCESS_DEFAULT, "[::2]:4711", NONE },
	{ ACCESS_DEFAULT, "[::]:4711", NONE },
	{ ACCESS_DEFAULT, "vsock:3:4711", NONE },
	{ ACCESS_DEFAULT, "unknown", NONE },
	/* prefixes that end inside and between bytes */
	{ "10.0.0.0/8", "10.255.0.1:1", BOTH },
	{ "10.0.0.0/8", "11.0.0.1:1", NONE },
	{ "192.168.4.0/22", "192.168.7.255:1", BOTH },
	{ "192.168.4.0/22", "192.168.8.0:1", NONE },
	{ "192.168.4.0/22", "192.168.3.255:1", NONE },
	{ "192.0.2.128/25", "192.0.2.127:1", NONE },
	{ "192.0.2.128/25", "192.0.2.128:1", BOTH },
	{ "192.0.2.1", "192.0.2.1:1", BOTH },
	{ "192.0.2.1", "192.0.2.2:1", NONE },
	{ "192.0.2.1/32", "192.0.2.1:1", BOTH },
	{ "192.0.2.0/31", "192.0.2.1:1", BOTH },
	{ "192.0.2.0/31", "192.0.2.2:1", NONE },
	{ "0.0.0.0/0", "203.0.113.9:1", BOTH },
	{ "0.0.0.0/1", "127.0.0.1:1", BOTH },
	{ "0.0.0.0/1", "128.0.0.1:1", NONE },
	{ "2001:db8::/32", "[2001:db8:ffff::1]:1", BOTH },
	{ "2001:db8::/32", "[2001:db9::1]:1", NONE },
	{ "2001:db8::/33", "[2001:db8:7fff::1]:1", BOTH },
	{ "2001:db8::/33", "[2001:db8:8000::1]:1", NONE },
	{ "2001:db8::1", "[2001:db8::1]:1", BOTH },
	{ "2001:db8::1/128", "[2001:db8::2]:1", NONE },
	{ "fe80::/10", "[fe80::1%2]:1", BOTH },
	/* families do not mix */
	{ "0.0.0.0/0", "[2001:db8::1]:1", NONE },
	{ "0.0.0.0/0", "unix:pid=1,uid=0", NONE },
	{ "::/0", "192.0.2.1:1", NONE },
	{ "::/0", "[::ffff:192.0.2.1]:1", NONE },
	{ "::/0", "[2001:db8::1]:1", BOTH },
	{ "::/0", "unix:pid=1,uid=0", NONE },
	{ "::/0 0.0.0.0/0", "vsock:2:1", NONE },
	/* IPv4 inside IPv6, on either side */
	{ "192.0.2.0/24", "[::ffff:192.0.2.1]:1", BOTH },
	{ "::ffff:192.0.2.0/120", "192.0.2.1:1", BOTH },
	{ "::ffff:192.0.2.0/120", "192.0.3.1:1", NONE },
	{ "::ffff:0.0.0.0/96", "203.0.113.9:1", BOTH },
	{ "[::ffff:192.0.2.1]:read", "192.0.2.1:1", READ },
	/* words */
	{ "local", "unix:pid=1,uid=0", BOTH },
	{ "local", "127.0.0.1:1", NONE },
	{ "vsock", "vsock:3:1", BOTH },
	{ "vsock", "unix:pid=1,uid=0", NONE },
	{ "any", "vsock:3:1", BOTH },
	{ "any", "unix:pid=1,uid=0", BOTH },
	{ "any", "[2001:db8::1]:1", BOTH },
	{ "any", "203.0.113.9:1", BOTH },
	{ "any", "unknown", BOTH },
	/* rights */
	{ "any:read", "203.0.113.9:1", READ },
	{ "any:write", "203.0.113.9:1", BOTH },
	{ "local:read", "unix:pid=1,uid=0", READ },
	{ "10.0.0.0/8:read", "10.0.0.1:1", READ },
	{ "10.0.0.0/8:write", "10.0.0.1:1", BOTH },
	{ "192.0.2.1:read", "192.0.2.1:1", READ },
	{ "[2001:db8::]/32:read", "[2001:db8::9]:1", READ },
	{ "[2001:db8::9]:read", "[2001:db8::9]:1", READ },
	{ "[2001:db8::9]", "[2001:db8::9]:1", BOTH },
	{ "2001:db8::/32:read", "[2001:db8::9]:1", READ },
	{ "[192.0.2.1]:read", "192.0.2.1:1", 255 },     /* brackets are IPv6's: no rule */
	/* the first that matches counts, not the closest */
	{ "10.1.0.0/16:read 10.0.0.0/8", "10.1.0.1:1", READ },
	{ "10.1.0.0/16:read 10.0.0.0/8", "10.2.0.1:1", BOTH },
	{ "10.0.0.0/8 10.1.0.0/16:read", "10.1.0.1:1", BOTH },
	{ "any:read local", "unix:pid=1,uid=0", READ },
	{ "local any:read", "unix:pid=1,uid=0", BOTH },
	{ "local any:read", "10.0.0.1:1", READ },
	/* blanks */
	{ "  local \t 10.0.0.0/8  ", "10.0.0.1:1", BOTH },
};

TEST(the_first_rule_that_matches_counts)
{
	for (size_t i = 0; i < ARRAY_LEN(lookups); i++) {
		struct access_list list = { 0 };
		struct failure why = { 0 };
		struct peer peer;
		char where[160];
		int r;

		(void) snprintf(where, sizeof where, "%s, %s", lookups[i].rules, lookups[i].peer);
		r = access_list_parse(lookups[i].rules, &list, &why);
		CHECK_EQ(where, r, lookups[i].want == 255 ? -EINVAL : 0);
		peer_parse(span_of(lookups[i].peer), &peer);
		if (r == 0)
			CHECK_EQ(where, access_list_rights(&list, &peer), lookups[i].want);
		access_list_clear(&list);
	}
}

#define NO_ADDRESS "neither an address nor local, vsock or any; an IPv6 address stands in [] " \
		   "where a right follows"

static const struct {
	const char *rules;
	const char *want;
} bad[] = {
	{ "", "no rule is given; leave the key out for who is on this machine" },
	{ " \t", "no rule is given; leave the key out for who is on this machine" },
	{ "everybody", "everybody: " NO_ADDRESS },
	{ "ANY", "ANY: " NO_ADDRESS },
	{ "any/8", "any/8: " NO_ADDRESS },
	{ "[any]", "[any]: " NO_ADDRESS },
	{ "10.0.0", "10.0.0: " NO_ADDRESS },
	{ "10.0.0.256", "10.0.0.256: " NO_ADDRESS },
	{ "010.0.0.1", "010.0.0.1: " NO_ADDRESS },
	{ "10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9: " NO_ADDRESS },
	{ "example.org", "example.org: " NO_ADDRESS },
	{ "2001:db8::1:read", "2001:db8::1:read: " NO_ADDRESS },
	{ "fe80::1%eth0", "fe80::1%eth0: " NO_ADDRESS },
	{ "10.0.0.0/33", "10.0.0.0/33: \"/33\" is not /0 to /32" },
	{ "10.0.0.0/", "10.0.0.0/: \"/\" is not /0 to /32" },
	{ "10.0.0.0/-1", "10.0.0.0/-1: \"/-1\" is not /0 to /32" },
	{ "10.0.0.0/8x", "10.0.0.0/8x: \"/8x\" is not /0 to /32" },
	{ "10.0.0.0/255.0.0.0", "10.0.0.0/255.0.0.0: \"/255.0.0.0\" is not /0 to /32" },
	{ "10.0.0.0/0000000008", "10.0.0.0/0000000008: \"/0000000008\" is not /0 to /32" },
	{ "::/129", "::/129: \"/129\" is not /0 to /128" },
	{ "10.0.0.1/8", "10.0.0.1/8: the address goes on behind /8; write 10.0.0.0/8, or leave "
			"/8 out for one address" },
	{ "2001:db8::1/32", "2001:db8::1/32: the address goes on behind /32; write 2001:db8::/32, "
			    "or leave /32 out for one address" },
	{ "[2001:db8::1", "[2001:db8::1: the ] of the address is missing, or something else than "
			  "/N or :read or :write follows it" },
	{ "[2001:db8::1]x", "[2001:db8::1]x: the ] of the address is missing, or something else "
			    "than /N or :read or :write follows it" },
	{ "local:", "local:: \"\" is no right; write :read or :write" },
	{ "local:rw", "local:rw: \"rw\" is no right; write :read or :write" },
	{ "local 10.0.0.0/8:Read", "10.0.0.0/8:Read: \"Read\" is no right; write :read or :write" },
	{ "local,any", "local,any: " NO_ADDRESS },
};

TEST(what_is_no_rule_is_named)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct access_list list = { .n = 4711 };
		struct failure why = { 0 };

		CHECK_EQ(bad[i].rules, access_list_parse(bad[i].rules, &list, &why), -EINVAL);
		CHECK_STR(bad[i].rules, why.text, bad[i].want);
		CHECK_EQ("untouched", list.n, 4711);
	}
}

TEST(a_rule_that_is_too_long_is_refused)
{
	struct access_list list = { 0 };
	struct failure why = { 0 };
	char text[200];

	memset(text, '1', sizeof text);
	text[sizeof text - 1] = '\0';
	CHECK_EQ("", access_list_parse(text, &list, &why), -EINVAL);
	CHECK(strstr(why.text, "too long for a rule") != NULL);
}

TEST(nobody_is_let_in_by_an_empty_list)
{
	const struct access_list nobody = { 0 };
	struct peer peer;

	peer_parse(span_of("127.0.0.1:1"), &peer);
	CHECK_EQ("", access_list_rights(&nobody, &peer), NONE);
}
