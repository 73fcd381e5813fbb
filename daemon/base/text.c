/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text from outside, and text for people.  Pure, but for format_peer(), which asks the
 * socket.  Nothing here allocates or depends on the locale.
 */
#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/attr.h"

#define REPLACEMENT "\xef\xbf\xbd"      /* U+FFFD */
#define DOTS "..."

/* How a sequence starts; `least` is what keeps overlong forms out. */
static const struct {
	uint8_t mask;
	uint8_t lead;
	uint8_t len;
	uint32_t least;
} utf8_forms[] = {
	{ 0x80, 0x00, 1, 0x0 },
	{ 0xe0, 0xc0, 2, 0x80 },
	{ 0xf0, 0xe0, 3, 0x800 },
	{ 0xf8, 0xf0, 4, 0x10000 },
};

/* The length of the character at `at`, of which `left` bytes are there; 0 if it is none. */
static size_t decode_utf8(const uint8_t *at, size_t left, uint32_t *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(utf8_forms); i++) {
		uint32_t c = at[0] & (uint8_t) ~utf8_forms[i].mask;
		size_t len = utf8_forms[i].len;

		if ((at[0] & utf8_forms[i].mask) != utf8_forms[i].lead)
			continue;
		if (len > left)
			return 0;
		for (size_t k = 1; k < len; k++) {
			if ((at[k] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (at[k] & 0x3f);
		}
		if (c < utf8_forms[i].least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
			return 0;
		*ret = c;
		return len;
	}
	return 0;
}

/* Control characters, line ends of Unicode, and what turns the direction of writing:
 * with these a name could show itself as another one, or as a line of its own. */
static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* What stands for the character at *at, which goes on behind it, and its length. */
static size_t take_shown(struct span s, bool with_controls, size_t *at, const void **ret)
{
	uint32_t c;
	size_t taken = decode_utf8(s.at + *at, s.len - *at, &c);
	bool as_it_is = taken > 0 && (with_controls || !is_control(c));

	*ret = as_it_is ? (const char *) s.at + *at : REPLACEMENT;
	*at += taken ? taken : 1;
	return as_it_is ? taken : strlen(REPLACEMENT);
}

void printable(struct span s, size_t max_shown, char *ret, size_t size)
{
	size_t len = 0, cut = 0, at = 0;
	size_t room = size - 1 < max_shown ? size - 1 : max_shown;

	if (size == 0)
		return;
	while (at < s.len) {
		size_t next = at;
		const void *shown;
		size_t shown_len = take_shown(s, false, &next, &shown);

		if (shown_len > room - len)
			break;
		memcpy(ret + len, shown, shown_len);
		len += shown_len;
		at = next;
		if (len + strlen(DOTS) < size)
			cut = len;              /* the dots fit behind this one */
	}
	if (at < s.len) {
		len = cut;
		for (size_t i = 0; i < strlen(DOTS) && len + 1 < size; i++)
			ret[len++] = '.';
	}
	ret[len] = '\0';
}

void make_utf8(const char *text, char *ret, size_t size)
{
	struct span s = span_of(text);
	size_t len = 0, at = 0;

	while (at < s.len) {
		const void *shown;
		size_t shown_len = take_shown(s, true, &at, &shown);

		if (shown_len >= size - len)
			break;
		memcpy(ret + len, shown, shown_len);
		len += shown_len;
	}
	ret[len] = '\0';
}

bool is_utf8(struct span s)
{
	size_t at = 0;

	while (at < s.len) {
		uint32_t c;
		size_t taken = decode_utf8(s.at + at, s.len - at, &c);

		if (taken == 0 || c == 0)
			return false;
		at += taken;
	}
	return true;
}

static const char units[] = "KMGTPE";

/* The power of two that the unit stands for, 0 for none, -1 for what is no unit. */
static int unit_shift(const char *unit)
{
	const char *found;

	if (!*unit)
		return 0;
	found = strchr(units, *unit >= 'a' && *unit <= 'z' ? *unit - 'a' + 'A' : *unit);
	if (!found)
		return -1;
	unit++;
	if (*unit && strcmp(unit, "iB") != 0 && strcmp(unit, "B") != 0)
		return -1;
	return 10 * (int) (found - units + 1);
}

int parse_size(const char *text, uint64_t *ret)
{
	uint64_t n = 0;
	bool overflow = false;
	const char *at = text;
	int shift;

	for (; *at >= '0' && *at <= '9'; at++) {
		overflow |= __builtin_mul_overflow(n, 10u, &n);
		overflow |= __builtin_add_overflow(n, (uint64_t) (*at - '0'), &n);
	}
	if (at == text)
		return -EINVAL;
	shift = unit_shift(at);
	if (shift < 0)
		return -EINVAL;
	if (overflow || n > UINT64_MAX >> shift)
		return -ERANGE;
	*ret = n << shift;
	return 0;
}

void format_size(uint64_t bytes, char *ret, size_t size)
{
	unsigned shift = 0;
	uint64_t whole, tenths;

	while (shift < 60 && bytes >> shift >= 1024)
		shift += 10;
	if (shift == 0) {
		(void) snprintf(ret, size, "%llu byte%s", (unsigned long long) bytes,
		                bytes == 1 ? "" : "s");
		return;
	}
	whole = bytes >> shift;
	tenths = ((bytes - (whole << shift)) * 10 + (1ull << (shift - 1))) >> shift;
	if (tenths == 10) {
		whole++;
		tenths = 0;
	}
	if (whole == 1024 && shift < 60) {      /* rounded up to the next unit */
		whole = 1;
		shift += 10;
	}
	if (tenths)
		(void) snprintf(ret, size, "%llu.%llu %ciB", (unsigned long long) whole,
		                (unsigned long long) tenths, units[shift / 10 - 1]);
	else
		(void) snprintf(ret, size, "%llu %ciB", (unsigned long long) whole,
		                units[shift / 10 - 1]);
}

int parse_bool(const char *text, bool *ret)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {
		{ "yes", true }, { "true", true }, { "on", true }, { "1", true },
		{ "no", false }, { "false", false }, { "off", false }, { "0", false },
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcasecmp(text, words[i].word) == 0) {
			*ret = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

static void format_inet(const struct sockaddr_in *in, char *ret, size_t size)
{
	char host[INET_ADDRSTRLEN] = "?";

	(void) inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
	(void) snprintf(ret, size, "%s:%u", host, ntohs(in->sin_port));
}

/* An IPv4 peer of a socket for both is shown as the IPv4 peer that it is. */
static void format_inet6(const struct sockaddr_in6 *in6, char *ret, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		struct sockaddr_in in = { .sin_port = in6->sin6_port };

		memcpy(&in.sin_addr, in6->sin6_addr.s6_addr + 12, sizeof in.sin_addr);
		format_inet(&in, ret, size);
		return;
	}
	(void) inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
	if (in6->sin6_scope_id)
		(void) snprintf(ret, size, "[%s%%%u]:%u", host, in6->sin6_scope_id,
		                ntohs(in6->sin6_port));
	else
		(void) snprintf(ret, size, "[%s]:%u", host, ntohs(in6->sin6_port));
}

static void format_unix_peer(int fd, char *ret, size_t size)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		(void) snprintf(ret, size, "unix");
	else
		(void) snprintf(ret, size, "unix:pid=%d,uid=%u", (int) peer.pid,
		                (unsigned) peer.uid);
}

void format_peer(int fd, char *ret, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_vm vm;
		struct sockaddr_storage room;
	} peer = { 0 };
	socklen_t len = sizeof peer;

	if (getpeername(fd, &peer.any, &len) < 0)
		(void) snprintf(ret, size, "unknown");
	else if (peer.any.sa_family == AF_INET)
		format_inet(&peer.in, ret, size);
	else if (peer.any.sa_family == AF_INET6)
		format_inet6(&peer.in6, ret, size);
	else if (peer.any.sa_family == AF_VSOCK)
		(void) snprintf(ret, size, "vsock:%u:%u", peer.vm.svm_cid, peer.vm.svm_port);
	else if (peer.any.sa_family == AF_UNIX)
		format_unix_peer(fd, ret, size);
	else
		(void) snprintf(ret, size, "unknown");
}

int uri_escape(const char *text, char *ret, size_t size)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~/";
	size_t len = 0;

	for (; *text; text++) {
		bool as_it_is = strchr(plain, *text) != NULL;

		if (len + (as_it_is ? 1 : 3) >= size)
			return -ENAMETOOLONG;
		if (as_it_is)
			ret[len] = *text;
		else
			(void) snprintf(ret + len, size - len, "%%%02X", (uint8_t) *text);
		len += as_it_is ? 1 : 3;
	}
	if (size == 0)
		return -ENAMETOOLONG;
	ret[len] = '\0';
	return 0;
}
