/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/identity.h"

#define NONE 0
#define LIST ACCESS_LIST
#define READ (ACCESS_LIST | ACCESS_READ)
#define BOTH (ACCESS_LIST | ACCESS_READ | ACCESS_WRITE)

#define PRINT "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define PRINT_WITH_COLONS "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:ab:cd:ef:" \
			  "01:23:45:67:89:ab:cd:ef:01:23:45:67:89:ab:cd:ef"

/* A client is written as what it has: "dn:...", "psk:...", a name; or "" for nothing. */
static const struct {
	const char *rules;
	const char *client;
	uint8_t want;
} lookups[] = {
	/* rights, and that the first rule counts */
	{ "list any", "dn:CN=a", LIST },
	{ "read any", "dn:CN=a", READ },
	{ "write any", "psk:a", BOTH },
	{ "write any", "", NONE },
	{ "read dn:CN=a\nwrite any", "dn:CN=a", READ },
	{ "read dn:CN=a\nwrite any", "dn:CN=b", BOTH },
	{ "write psk:a\nwrite dns:a", "dn:CN=a", NONE },
	{ "", "dn:CN=a", NONE },
	/* a subject is compared whole */
	{ "read dn:CN=alice,O=Example", "dn:CN=alice,O=Example", READ },
	{ "read dn:CN=alice,O=Example", "dn:CN=alice,O=Example,C=DE", NONE },
	{ "read dn:CN=alice", "dn:CN=alice,O=Example", NONE },
	{ "read dn:cn=alice", "dn:CN=alice", NONE },
	{ "read dn:O=Example", "dn:CN=alice,O=Example", NONE },
	{ "read dn:CN=*,O=Example", "dn:CN=alice,O=Example", READ },
	{ "read dn:CN=*,O=Example", "dn:CN=alice,OU=Guests,O=Example", NONE },
	{ "read dn:CN=*,O=Example", "dn:CN=alice\\,O=Example", NONE },
	{ "read dn:CN=*,O=Example", "dn:CN=a\\,b,O=Example", READ },
	{ "read dn:CN=*,O=Example", "dn:CN=a\\2cO=Example", NONE },
	{ "read dn:CN=*,O=Example", "dn:CN=a+OU=b,O=Example", NONE },
	{ "read dn:*", "dn:CN=a", READ },
	{ "read dn:*", "dn:CN=a,O=b", NONE },
	{ "read dn:*", "psk:a", NONE },
	{ "read dn:CN=a\\,b", "dn:CN=a\\,b", READ },
	{ "read dn:CN=a,b", "dn:CN=a\\,b", NONE },
	/* names: one label, in any case */
	{ "read dns:web.example.org", "dns:WEB.Example.Org", READ },
	{ "read dns:*.example.org", "dns:web.example.org", READ },
	{ "read dns:*.example.org", "dns:a.b.example.org", NONE },
	{ "read dns:*.example.org", "dns:example.org", NONE },
	{ "read dns:*.example.org", "dns:web.example.org.evil", NONE },
	{ "read dns:web-*-a*.example.org", "dns:web-1-b-ab.example.org", READ },
	{ "read dns:web-*-a*.example.org", "dns:web-1-b.example.org", NONE },
	{ "read dns:a", "email:a", NONE },
	{ "read dns:a", "psk:dns:a", NONE },
	{ "read email:alice@example.org", "email:alice@example.org", READ },
	{ "read email:alice@example.org", "email:Alice@example.org", NONE },
	{ "read email:*@example.org", "email:bob@example.org", READ },
	{ "read email:*@example.org", "email:a@b@example.org", NONE },
	{ "read uri:spiffe://example.org/*", "uri:spiffe://example.org/web", READ },
	{ "read uri:spiffe://example.org/*", "uri:spiffe://example.org/web/1", NONE },
	{ "read uri:spiffe://*/web", "uri:spiffe://evil.org/x/web", NONE },
	/* addresses */
	{ "read ip:192.0.2.7", "ip:192.0.2.7", READ },
	{ "read ip:192.0.2.0/24", "ip:192.0.2.255", READ },
	{ "read ip:192.0.2.0/24", "ip:192.0.3.0", NONE },
	{ "read ip:2001:db8::/32", "ip:2001:db8::1", READ },
	{ "read ip:2001:db8::1", "ip:2001:db8::2", NONE },
	{ "read ip:192.0.2.7", "dns:192.0.2.7", NONE },
	{ "read ip:192.0.2.7", "ip:nonsense", NONE },
	/* certificates and keys */
	{ "read fingerprint:" PRINT, "fingerprint:" PRINT, READ },
	{ "read fingerprint:" PRINT_WITH_COLONS, "fingerprint:" PRINT, READ },
	{ "read fingerprint:" PRINT, "dn:CN=a", NONE },
	{ "read psk:backup", "psk:backup", READ },
	{ "read psk:backup", "psk:backup2", NONE },
	{ "read psk:host *", "psk:host 2", READ },
	{ "read psk:*.x", "psk:a.b/c.x", READ },
	{ "read psk:*", "dn:CN=a", NONE },
};

/* Fills it from the words; a certificate has some fingerprint. */
static void identity_from(const char *client, struct span *name, struct identity *ret)
{
	*ret = (struct identity) { 0 };
	if (!*client)
		return;
	if (strncmp(client, "psk:", 4) == 0) {
		ret->psk = span_of(client + 4);
		return;
	}
	ret->fingerprint = span_of("ff");
	if (strncmp(client, "dn:", 3) == 0)
		ret->subject = span_of(client + 3);
	else if (strncmp(client, "fingerprint:", 12) == 0)
		ret->fingerprint = span_of(client + 12);
	else
		*name = span_of(client);
	ret->names = name;
	ret->n_names = name->len ? 1 : 0;
}

TEST(a_client_has_the_rights_of_the_first_rule_that_matches)
{
	for (size_t i = 0; i < ARRAY_LEN(lookups); i++) {
		struct identity_list list = { 0 };
		struct failure why = { 0 };
		struct span name = { 0 };
		struct identity who;

		identity_from(lookups[i].client, &name, &who);
		CHECK_EQ(lookups[i].rules, identity_list_parse(lookups[i].rules, &list, &why), 0);
		CHECK_EQ(lookups[i].client, identity_list_rights(&list, &who), lookups[i].want);
		identity_list_clear(&list);
	}
}

TEST(any_of_several_names_is_enough)
{
	const struct span names[] = { span_of("dns:a"), span_of("email:b@c"), span_of("dns:d") };
	const struct identity who = { .fingerprint = span_of("ff"), .names = names, .n_names = 3 };
	struct identity_list list = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", identity_list_parse("write dns:d\nread email:*@c", &list, &why), 0);
	CHECK_EQ("", identity_list_rights(&list, &who), BOTH);
	identity_list_clear(&list);
}

static const struct {
	const char *rule;
	const char *want;
} bad[] = {
	{ "any", "any: begin with list, read or write, and then say for whom: read "
		 "dns:backup.example.org" },
	{ "own any", "own any: begin with list, read or write, and then say for whom: read "
		     "dns:backup.example.org" },
	{ "read any:", "read any:: nothing follows any" },
	{ "read any:x", "read any:x: nothing follows any" },
	{ "read dns", "read dns: no name follows the kind" },
	{ "read dns:", "read dns:: no name follows the kind" },
	{ "read cn:x", "read cn:x: write dn:, dns:, email:, uri:, ip:, fingerprint: or psk: and a "
		       "name, or any" },
	{ "read ip:x", "read ip:x: not an address, or one with /N behind it" },
	{ "read ip:local", "read ip:local: not an address, or one with /N behind it" },
	{ "read ip:192.0.2.1/24", "read ip:192.0.2.1/24: 192.0.2.1/24: the address goes on behind "
				  "/24; write 192.0.2.0/24, or leave /24 out for one address" },
	{ "read fingerprint:12", "read fingerprint:12: not the 64 hexadecimal digits of a SHA-256" },
	{ "read psk:x ", "read psk:x : it ends with a space, or holds what is not UTF-8 or a "
			 "control character" },
	{ "read psk:\xff", "read psk:\xef\xbf\xbd: it ends with a space, or holds what is not UTF-8 "
			  "or a control character" },
};

TEST(what_is_no_rule_is_refused_with_words)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct identity_list list = { 0 };
		struct failure why = { 0 };

		CHECK(identity_list_parse(bad[i].rule, &list, &why) < 0);
		CHECK_STR(bad[i].rule, why.text, bad[i].want);
		CHECK(!list.rules && list.n == 0);
	}
}

TEST(a_setting_gathers_its_lines)
{
	struct failure why = { 0 };
	char *text = NULL;

	CHECK_EQ("", setting_identity("read any", &text, &why), 0);
	CHECK_STR("", text, "read any");
	CHECK_EQ("", setting_identity("write dn:CN=a b", &text, &why), 0);
	CHECK(setting_identity("write", &text, &why) < 0);
	CHECK_STR("", text, "read any\nwrite dn:CN=a b");
	free(text);
}

/* What a pattern means, said again and slowly: a * stands for any bytes but dots. */
static bool means(const char *pattern, const char *text)
{
	if (*pattern == '*')
		return means(pattern + 1, text) || (*text && *text != '.' && means(pattern, text + 1));
	if (!*pattern || !*text)
		return *pattern == *text;
	return *pattern == *text && means(pattern + 1, text + 1);
}

/* The number's digits as letters of the alphabet; false when a digit in front is 0, so that each word
 * comes once. */
static bool spell(unsigned number, const char *alphabet, char *ret)
{
	unsigned base = (unsigned) strlen(alphabet) + 1;
	size_t len = 0;

	for (; number; number /= base) {
		if (number % base == 0)
			return false;
		ret[len++] = alphabet[number % base - 1];
	}
	ret[len] = '\0';
	return len > 0;
}

TEST(every_short_pattern_matches_what_it_means)
{
	char pattern[8], text[8], rule[24], name[16];
	unsigned n_matches = 0;

	for (unsigned p = 1; p < 5 * 5 * 5 * 5 * 5; p++) {
		struct identity_list list = { 0 };
		struct failure why = { 0 };

		if (!spell(p, "ab.*", pattern))
			continue;
		(void) snprintf(rule, sizeof rule, "read dns:%s", pattern);
		CHECK_EQ(rule, identity_list_parse(rule, &list, &why), 0);
		for (unsigned t = 1; t < 4 * 4 * 4 * 4 * 4; t++) {
			struct span names[1];
			struct identity who = { .fingerprint = span_of("ff"), .names = names,
			                        .n_names = 1 };

			if (!spell(t, "ab.", text))
				continue;
			(void) snprintf(name, sizeof name, "dns:%s", text);
			names[0] = span_of(name);
			CHECK_EQ(rule, identity_list_rights(&list, &who) != 0, means(pattern, text));
			n_matches += means(pattern, text);
		}
		identity_list_clear(&list);
	}
	CHECK(n_matches > 1000);
}
