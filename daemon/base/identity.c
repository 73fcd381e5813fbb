/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Identity rules: from text, and looked up. */
#include "base/identity.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/settings.h"
#include "base/text.h"

#define BLANKS " \t"
#define RULE_SHOWN 80u
#define FINGERPRINT_LEN 64u
#define AUTO_LIST __attribute__((cleanup(identity_list_clear))) struct identity_list

static const struct {
	const char *word;
	uint8_t rights;
} rights[] = {
	{ "list", ACCESS_LIST },
	{ "read", ACCESS_LIST | ACCESS_READ },
	{ "write", ACCESS_LIST | ACCESS_READ | ACCESS_WRITE },
};

/* --- what a name is made of ------------------------------------------------ */

static size_t plain_len(struct span rest)
{
	(void) rest;
	return 1;
}

/* An escaped byte of RFC 4514, "\," or "\2c", is one that ends no part. */
static size_t dn_len(struct span rest)
{
	if (rest.at[0] != '\\' || rest.len < 2)
		return 1;
	if (rest.len > 2 && isxdigit(rest.at[1]) && isxdigit(rest.at[2]))
		return 3;
	return 2;
}

static const struct kind {
	const char *word;
	const char *separators;         /* that * does not stand for */
	size_t (*token_len)(struct span rest);
	bool ignores_case;
	bool names;                     /* it is looked up in the alternative names */
} kinds[N_IDENTITY_KINDS] = {
	[IDENTITY_ANY] = { "any", "", plain_len, false, false },
	[IDENTITY_DN] = { "dn", ",+", dn_len, false, false },
	[IDENTITY_DNS] = { "dns", ".", plain_len, true, true },
	[IDENTITY_EMAIL] = { "email", "@", plain_len, false, true },
	[IDENTITY_URI] = { "uri", "/", plain_len, false, true },
	[IDENTITY_IP] = { "ip", "", plain_len, false, true },
	[IDENTITY_FINGERPRINT] = { "fingerprint", "", plain_len, false, false },
	[IDENTITY_PSK] = { "psk", "", plain_len, false, false },
};

static struct span first_token(const struct kind *kind, struct span rest)
{
	return (struct span) { .at = rest.at, .len = kind->token_len(rest) };
}

static struct span behind(struct span text, size_t len)
{
	return (struct span) { .at = text.at + len, .len = text.len - len };
}

static bool is_separator(const struct kind *kind, struct span token)
{
	return token.len == 1 && token.at[0] && strchr(kind->separators, token.at[0]);
}

static bool same_token(const struct kind *kind, struct span a, struct span b)
{
	return a.len == b.len &&
	       (memcmp(a.at, b.at, a.len) == 0 ||
	        (kind->ignores_case && a.len == 1 && tolower(a.at[0]) == tolower(b.at[0])));
}

static bool is_star(struct span pattern)
{
	return pattern.len && pattern.at[0] == '*';
}

/* Parts are as many in both, since no * takes a separator; so the last * is the only one that
 * may have to take more. */
static bool matches(const struct kind *kind, struct span pattern, struct span text)
{
	struct span star = { 0 }, taken = { 0 };        /* behind the last *, and where it began */
	bool has_star = false;

	while (text.len || pattern.len) {
		struct span token = text.len ? first_token(kind, text) : (struct span) { 0 };

		if (is_star(pattern)) {
			star = pattern = behind(pattern, 1);
			taken = text;
			has_star = true;
		} else if (text.len && pattern.len &&
		           same_token(kind, first_token(kind, pattern), token)) {
			has_star = has_star && !is_separator(kind, token);
			pattern = behind(pattern, token.len);
			text = behind(text, token.len);
		} else {
			if (!has_star || !taken.len ||
			    is_separator(kind, first_token(kind, taken)))
				return false;
			taken = text = behind(taken, first_token(kind, taken).len);
			pattern = star;
		}
	}
	return true;
}

/* --- from text -------------------------------------------------------------- */

/* Without colons, in lower case. */
static int keep_fingerprint(struct identity_rule *rule, struct failure *why)
{
	bool good = true;
	size_t len = 0;

	for (const char *at = rule->pattern; *at; at++) {
		if (*at == ':')
			continue;
		good = good && isxdigit((unsigned char) *at);
		rule->pattern[len++] = (char) tolower((unsigned char) *at);
	}
	rule->pattern[len] = '\0';
	if (!good || len != FINGERPRINT_LEN)
		return fail_plain(why, EINVAL, "not the 64 hexadecimal digits of a SHA-256");
	return 0;
}

/* Digits and colons; nothing that a rule of Allow= could have besides. */
static int keep_address(struct identity_rule *rule, struct failure *why)
{
	if (rule->pattern[strspn(rule->pattern, "0123456789abcdefABCDEF:./")])
		return fail_plain(why, EINVAL, "not an address, or one with /N behind it");
	return access_list_parse(rule->pattern, &rule->addresses, why);
}

static int find_kind(const char *word, size_t len, enum identity_kind *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strlen(kinds[i].word) == len && memcmp(kinds[i].word, word, len) == 0) {
			*ret = (enum identity_kind) i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_who(const char *who, struct identity_rule *rule, struct failure *why)
{
	size_t len = strcspn(who, ":");
	bool has_pattern = who[len] == ':' && who[len + 1];

	if (find_kind(who, len, &rule->kind) < 0)
		return fail_plain(why, EINVAL, "write dn:, dns:, email:, uri:, ip:, "
		                  "fingerprint: or psk: and a name, or any");
	if ((rule->kind == IDENTITY_ANY) == (who[len] == ':') ||
	    (rule->kind != IDENTITY_ANY && !has_pattern))
		return fail_plain(why, EINVAL, rule->kind == IDENTITY_ANY ?
		                  "nothing follows any" : "no name follows the kind");
	rule->pattern = strdup(has_pattern ? who + len + 1 : "");
	if (!rule->pattern)
		return fail(why, ENOMEM, "cannot keep it");
	if (rule->kind == IDENTITY_FINGERPRINT)
		return keep_fingerprint(rule, why);
	return rule->kind == IDENTITY_IP ? keep_address(rule, why) : 0;
}

/* A rule is a line of a file, which has no blanks at its end. */
static bool is_line(const char *text)
{
	for (const char *at = text; *at; at++)
		if ((uint8_t) *at < 0x20 || *at == 0x7f || (*at == ' ' && !at[1]))
			return false;
	return is_utf8(span_of(text));
}

static int parse_rule(const char *line, struct identity_rule *rule, struct failure *why)
{
	size_t len = strcspn(line, BLANKS);

	if (!is_line(line))
		return fail_plain(why, EINVAL, "it ends with a space, or holds what is not UTF-8 "
		                  "or a control character");
	for (size_t i = 0; i < ARRAY_LEN(rights); i++)
		if (strlen(rights[i].word) == len && memcmp(rights[i].word, line, len) == 0)
			rule->rights = rights[i].rights;
	if (!rule->rights)
		return fail_plain(why, EINVAL, "begin with list, read or write, and then say for "
		                  "whom: read dns:backup.example.org");
	return parse_who(line + len + strspn(line + len, BLANKS), rule, why);
}

static void clear_rule(struct identity_rule *rule)
{
	access_list_clear(&rule->addresses);
	free(rule->pattern);
}

/* Takes `line`, which has no newline. */
static int add_rule(struct identity_list *list, const char *line, struct failure *why)
{
	struct identity_rule rule = { 0 }, *more;
	char shown[RULE_SHOWN + 4];
	int r = parse_rule(line, &rule, why);

	if (r < 0) {
		clear_rule(&rule);
		printable(span_of(line), RULE_SHOWN, shown, sizeof shown);
		return fail_while(why, "%s", shown);
	}
	more = reallocarray(list->rules, list->n + 1, sizeof *more);
	if (!more) {
		clear_rule(&rule);
		return fail(why, ENOMEM, "cannot keep an identity rule");
	}
	list->rules = more;
	list->rules[list->n++] = rule;
	return 0;
}

int identity_list_parse(const char *text, struct identity_list *ret, struct failure *why)
{
	AUTO_FREE char *copy = strdup(text);
	AUTO_LIST list = { 0 };
	char *at = copy, *line;

	if (!copy)
		return fail(why, ENOMEM, "cannot keep identity rules");
	while ((line = strsep(&at, "\n"))) {
		int r = *line ? add_rule(&list, line, why) : 0;

		if (r < 0)
			return r;
	}
	*ret = list;
	list = (struct identity_list) { 0 };
	return 0;
}

void identity_list_clear(struct identity_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		clear_rule(&list->rules[i]);
	free(list->rules);
	*list = (struct identity_list) { 0 };
}

int identities_check(const char *text, enum tls_policy tls, struct failure *why)
{
	AUTO_LIST list = { 0 };
	int r = identity_list_parse(text ? text : "", &list, why);

	if (r == 0 && list.n && tls == TLS_POLICY_OFF)
		return fail_plain(why, EINVAL, "with TLS=off nobody can say who it is");
	return r;
}

int setting_identity(const char *value, void *char_pointer, struct failure *why)
{
	char **into = char_pointer, *more;
	struct identity_rule rule = { 0 };
	int r = parse_rule(value, &rule, why);

	clear_rule(&rule);
	if (r < 0)
		return r;
	if (asprintf(&more, "%s%s%s", *into ? *into : "", *into && **into ? "\n" : "", value) < 0)
		return fail(why, ENOMEM, "cannot keep it");
	free(*into);
	*into = more;
	return 0;
}

/* --- looked up --------------------------------------------------------------- */

/* peer_parse() knows addresses with a port. */
static bool has_address(const struct access_list *addresses, struct span address)
{
	bool is_ipv6 = memchr(address.at, ':', address.len);
	char text[64];
	struct peer peer;
	int len = snprintf(text, sizeof text, is_ipv6 ? "[%.*s]:0" : "%.*s:0", (int) address.len,
	                   (const char *) address.at);

	if (len < 0 || (size_t) len >= sizeof text)
		return false;
	peer_parse(span_of(text), &peer);
	return access_list_rights(addresses, &peer) != 0;
}

/* One alternative name, "dns:a.example". */
static bool name_matches(const struct identity_rule *rule, struct span name)
{
	const struct kind *kind = &kinds[rule->kind];
	size_t len = strlen(kind->word);
	struct span value;

	if (name.len <= len || memcmp(name.at, kind->word, len) != 0 || name.at[len] != ':')
		return false;
	value = behind(name, len + 1);
	return rule->kind == IDENTITY_IP ? has_address(&rule->addresses, value) :
	                                   matches(kind, span_of(rule->pattern), value);
}

static bool rule_matches(const struct identity_rule *rule, const struct identity *who)
{
	const struct span pattern = span_of(rule->pattern);
	bool has_certificate = who->fingerprint.len;

	switch (rule->kind) {
	case IDENTITY_ANY:
		return has_certificate || who->psk.len;
	case IDENTITY_DN:
		return who->subject.len && matches(&kinds[rule->kind], pattern, who->subject);
	case IDENTITY_FINGERPRINT:
		return has_certificate && span_equal(pattern, who->fingerprint);
	case IDENTITY_PSK:
		return who->psk.len && matches(&kinds[rule->kind], pattern, who->psk);
	default:
		break;
	}
	for (size_t i = 0; i < who->n_names; i++)
		if (name_matches(rule, who->names[i]))
			return true;
	return false;
}

uint8_t identity_list_rights(const struct identity_list *list, const struct identity *who)
{
	for (size_t i = 0; i < list->n; i++)
		if (rule_matches(&list->rules[i], who))
			return list->rules[i].rights;
	return 0;
}
