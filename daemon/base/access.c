/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Access rules: from text, and looked up. */
#include "base/access.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/settings.h"
#include "base/text.h"

#define BLANKS " \t"
#define RULE_MAX 80u                    /* bytes; no rule is longer */
#define MAPPED_BITS 96u                 /* in front of an IPv4 address inside IPv6 */

/* One rule's parts, cut out of a copy of it. */
struct parts {
	char text[RULE_MAX + 1];
	char *who;
	char *prefix;                   /* NULL: none was given */
	char *right;                    /* NULL: none was given */
	bool bracketed;
};

static const struct {
	const char *word;
	uint8_t rights;
} rights[] = {
	{ "read", ACCESS_LIST | ACCESS_READ },
	{ "write", ACCESS_LIST | ACCESS_READ | ACCESS_WRITE },
};

static const struct {
	const char *word;
	struct access_rule rule;
} words[] = {
	{ "any", { .anybody = true } },
	{ "local", { .kind = PEER_LOCAL } },
	{ "vsock", { .kind = PEER_VSOCK } },
};

/* Cuts `*at` off at the first `c`; NULL when there is none. */
static char *cut_at(char *at, char c)
{
	char *found = strchr(at, c);

	if (!found)
		return NULL;
	*found = '\0';
	return found + 1;
}

/* "[WHO]/PREFIX:RIGHT", with everything but WHO optional. */
static bool split(struct parts *p)
{
	char *rest = p->text;

	p->who = p->text;
	if (*rest == '[') {
		p->bracketed = true;
		p->who = rest + 1;
		rest = cut_at(p->who, ']');
		if (!rest || (*rest && *rest != '/' && *rest != ':'))
			return false;
		if (*rest == ':')
			p->right = rest + 1;
		else if (*rest == '/')
			p->prefix = rest + 1;
	} else {
		p->prefix = cut_at(rest, '/');
		/* An IPv6 address has several colons, which are its own. */
		if (!p->prefix && strchr(rest, ':') == strrchr(rest, ':'))
			p->right = cut_at(rest, ':');
	}
	if (p->prefix)
		p->right = cut_at(p->prefix, ':');
	return true;
}

static int parse_right(const struct parts *p, struct access_rule *rule, struct failure *why)
{
	if (!p->right) {
		rule->rights = ACCESS_LIST | ACCESS_READ | ACCESS_WRITE;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(rights); i++) {
		if (strcmp(p->right, rights[i].word) == 0) {
			rule->rights = rights[i].rights;
			return 0;
		}
	}
	return fail_plain(why, EINVAL, "\"%s\" is no right; write :read or :write", p->right);
}

static int parse_word(const struct parts *p, struct access_rule *rule)
{
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (!p->bracketed && !p->prefix && strcmp(p->who, words[i].word) == 0) {
			*rule = words[i].rule;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_address(const struct parts *p, struct access_rule *rule, unsigned *ret_bits)
{
	if (!p->bracketed && inet_pton(AF_INET, p->who, rule->address) == 1) {
		rule->kind = PEER_IPV4;
		*ret_bits = 32;
		return 0;
	}
	if (inet_pton(AF_INET6, p->who, rule->address) == 1) {
		rule->kind = PEER_IPV6;
		*ret_bits = 128;
		return 0;
	}
	return -EINVAL;
}

/* Digits up to `bits`, and nothing else. */
static int parse_prefix(const char *text, unsigned bits, uint8_t *ret, struct failure *why)
{
	size_t len = strspn(text, "0123456789");
	unsigned long n = len > 0 && len <= 3 ? strtoul(text, NULL, 10) : bits + 1ul;

	if (text[len] || n > bits)
		return fail_plain(why, EINVAL, "\"/%s\" is not /0 to /%u", text, bits);
	*ret = (uint8_t) n;
	return 0;
}

/* Clears what lies behind the prefix.  True when there was something. */
static bool clear_behind(uint8_t *address, unsigned prefix, unsigned bits)
{
	bool had_some = false;

	for (unsigned i = prefix; i < bits; i++) {
		uint8_t bit = (uint8_t) (0x80u >> (i % 8));

		had_some |= address[i / 8] & bit;
		address[i / 8] &= (uint8_t) ~bit;
	}
	return had_some;
}

/* A prefix shorter than the address is a slip of the pen that could let in too many. */
static int check_behind(struct access_rule *rule, unsigned bits, struct failure *why)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (!clear_behind(rule->address, rule->prefix, bits))
		return 0;
	(void) inet_ntop(bits == 32 ? AF_INET : AF_INET6, rule->address, host, sizeof host);
	return fail_plain(why, EINVAL, "the address goes on behind /%u; write %s/%u, or leave "
	                  "/%u out for one address", rule->prefix, host, rule->prefix,
	                  rule->prefix);
}

/* "::ffff:10.0.0.0/104" is 10.0.0.0/8. */
static void unmap(struct access_rule *rule)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (rule->kind != PEER_IPV6 || rule->prefix < MAPPED_BITS ||
	    memcmp(rule->address, mapped, sizeof mapped) != 0)
		return;
	rule->kind = PEER_IPV4;
	rule->prefix = (uint8_t) (rule->prefix - MAPPED_BITS);
	memmove(rule->address, rule->address + 12, 4);
	memset(rule->address + 4, 0, 12);
}

static int parse_rule(struct parts *p, struct access_rule *ret, struct failure *why)
{
	struct access_rule rule = { 0 };
	unsigned bits = 0;
	int r;

	if (!split(p))
		return fail_plain(why, EINVAL, "the ] of the address is missing, or something "
		                  "else than /N or :read or :write follows it");
	if (parse_word(p, &rule) < 0) {
		if (parse_address(p, &rule, &bits) < 0)
			return fail_plain(why, EINVAL, "neither an address nor local, vsock or "
			                  "any; an IPv6 address stands in [] where a right "
			                  "follows");
		rule.prefix = (uint8_t) bits;
		r = p->prefix ? parse_prefix(p->prefix, bits, &rule.prefix, why) : 0;
		if (r == 0)
			r = check_behind(&rule, bits, why);
		if (r < 0)
			return r;
		unmap(&rule);
	}
	r = parse_right(p, &rule, why);
	if (r == 0)
		*ret = rule;
	return r;
}

/* Appends the rule that is `len` bytes at `at`. */
static int add_rule(struct access_list *list, const char *at, size_t len, struct failure *why)
{
	char shown[RULE_MAX + 4];
	struct access_rule *more;
	struct parts p = { 0 };
	int r;

	printable((struct span) { (const uint8_t *) at, len }, RULE_MAX, shown, sizeof shown);
	more = reallocarray(list->rules, list->n + 1, sizeof *more);
	if (!more)
		return fail(why, ENOMEM, "cannot keep the rule %s", shown);
	list->rules = more;
	if (len > RULE_MAX)
		return fail_plain(why, EINVAL, "%s: too long for a rule", shown);
	memcpy(p.text, at, len);
	r = parse_rule(&p, &list->rules[list->n], why);
	if (r < 0)
		return fail_while(why, "%s", shown);
	list->n++;
	return 0;
}

int access_list_parse(const char *text, struct access_list *ret, struct failure *why)
{
	__attribute__((cleanup(access_list_clear))) struct access_list list = { 0 };

	for (text += strspn(text, BLANKS); *text; text += strspn(text, BLANKS)) {
		size_t len = strcspn(text, BLANKS);
		int r = add_rule(&list, text, len, why);

		if (r < 0)
			return r;
		text += len;
	}
	if (list.n == 0)
		return fail_plain(why, EINVAL, "no rule is given; leave the key out for who is on "
		                  "this machine");
	*ret = list;
	list = (struct access_list) { 0 };
	return 0;
}

void access_list_clear(struct access_list *list)
{
	free(list->rules);
	*list = (struct access_list) { 0 };
}

static bool starts_alike(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return memcmp(a, b, whole) == 0 && (!rest || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

uint8_t access_list_rights(const struct access_list *list, const struct peer *peer)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct access_rule *rule = &list->rules[i];

		if (rule->anybody || (rule->kind == peer->kind &&
		                      starts_alike(rule->address, peer->address, rule->prefix)))
			return rule->rights;
	}
	return 0;
}

int setting_access(const char *value, void *char_pointer, struct failure *why)
{
	struct access_list list;
	int r = access_list_parse(value, &list, why);

	if (r < 0)
		return r;
	access_list_clear(&list);
	return setting_string(value, char_pointer, why);
}
