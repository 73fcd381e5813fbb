/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/text.h"

#define FFFD "\xef\xbf\xbd"
#define SPAN(literal) { (const uint8_t *) (literal), sizeof(literal) - 1 }

static const struct {
	const char *what;
	struct span raw;
	const char *want;
	bool utf8;
} texts[] = {
	{ "nothing", SPAN(""), "", true },
	{ "ascii", SPAN("disk 1~"), "disk 1~", true },
	{ "two bytes", SPAN("\xc3\xa4"), "\xc3\xa4", true },
	{ "three bytes", SPAN("\xe2\x82\xac"), "\xe2\x82\xac", true },
	{ "four bytes", SPAN("\xf0\x9f\x92\xbe"), "\xf0\x9f\x92\xbe", true },
	{ "the last character", SPAN("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf", true },
	{ "beyond the last", SPAN("\xf4\x90\x80\x80"), FFFD FFFD FFFD FFFD, false },
	{ "a five-byte lead", SPAN("\xf8\x88\x80\x80\x80"), FFFD FFFD FFFD FFFD FFFD, false },
	{ "a continuation alone", SPAN("a\x80z"), "a" FFFD "z", false },
	{ "two of three bytes", SPAN("a\xe2\x82"), "a" FFFD FFFD, false },
	{ "three of four bytes", SPAN("\xf0\x9f\x92"), FFFD FFFD FFFD, false },
	{ "a lead at the end", SPAN("a\xc3"), "a" FFFD, false },
	{ "a lead before ascii", SPAN("\xc3z"), FFFD "z", false },
	{ "an overlong slash", SPAN("\xc0\xaf"), FFFD FFFD, false },
	{ "an overlong NUL", SPAN("\xc0\x80"), FFFD FFFD, false },
	{ "an overlong three-byte slash", SPAN("\xe0\x80\xaf"), FFFD FFFD FFFD, false },
	{ "an overlong four-byte form", SPAN("\xf0\x80\x82\xac"), FFFD FFFD FFFD FFFD, false },
	{ "the first surrogate", SPAN("\xed\xa0\x80"), FFFD FFFD FFFD, false },
	{ "the last surrogate", SPAN("\xed\xbf\xbf"), FFFD FFFD FFFD, false },
	{ "just before surrogates", SPAN("\xed\x9f\xbf"), "\xed\x9f\xbf", true },
	{ "0xff", SPAN("\xff"), FFFD, false },
	{ "a NUL", SPAN("a\0b"), "a" FFFD "b", false },
	{ "a newline", SPAN("a\nb"), "a" FFFD "b", true },
	{ "an escape", SPAN("\033[2J"), FFFD "[2J", true },
	{ "a delete", SPAN("\x7f"), FFFD, true },
	{ "a C1 control", SPAN("\xc2\x9b" "2J"), FFFD "2J", true },
	{ "a line separator", SPAN("\xe2\x80\xa8"), FFFD, true },
	{ "a right-to-left override", SPAN("\xe2\x80\xae" "txt"), FFFD "txt", true },
};

TEST(text_from_outside_becomes_printable)
{
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		char shown[64];

		printable(texts[i].raw, sizeof shown - 4, shown, sizeof shown);
		CHECK_STR(texts[i].what, shown, texts[i].want);
		CHECK_EQ(texts[i].what, is_utf8(texts[i].raw), texts[i].utf8);
	}
}

TEST(text_for_programs_is_utf8_and_otherwise_as_it_was)
{
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		const char *raw = (const char *) texts[i].raw.at;
		char made[64];

		if (strlen(raw) < texts[i].raw.len)
			continue;
		make_utf8(raw, made, sizeof made);
		CHECK_STR(texts[i].what, made, texts[i].utf8 ? raw : texts[i].want);
	}
}

TEST(text_for_programs_is_cut_between_characters)
{
	char made[8];

	make_utf8("abcd\xe2\x82\xacz", made, 7);
	CHECK_STR("inside a character", made, "abcd");
	make_utf8("abcd\xe2\x82\xacz", made, 8);
	CHECK_STR("behind it", made, "abcd\xe2\x82\xac");
	make_utf8("a\xff", made, 4);
	CHECK_STR("inside a replacement", made, "a");
	make_utf8("a", made, 1);
	CHECK_STR("nothing fits", made, "");
}

TEST(the_bytes_behind_a_text_are_not_looked_at)
{
	struct span most = { (const uint8_t *) "\xe2\x82\xac", 2 };
	char shown[16];

	printable(most, 12, shown, sizeof shown);
	CHECK_STR("", shown, FFFD FFFD);
	CHECK(!is_utf8(most));
}

TEST(what_is_cut_shows_dots_and_whole_characters)
{
	char shown[16];

	printable(span_of("abcdef"), 6, shown, sizeof shown);
	CHECK_STR("exactly", shown, "abcdef");
	printable(span_of("abcdefg"), 6, shown, sizeof shown);
	CHECK_STR("one over", shown, "abcdef...");
	printable(span_of("abcd\xe2\x82\xacz"), 6, shown, sizeof shown);
	CHECK_STR("inside a character", shown, "abcd...");
	printable(span_of("ab\n\n"), 6, shown, sizeof shown);
	CHECK_STR("replacements count with their bytes", shown, "ab" FFFD "...");
	printable(span_of("abc"), 0, shown, sizeof shown);
	CHECK_STR("none to be shown", shown, "...");
	printable(span_of(""), 0, shown, sizeof shown);
	CHECK_STR("nothing there", shown, "");
}

/* The sanitizers watch the bytes behind; each buffer is exactly as long as it says. */
TEST(no_size_of_buffer_is_overrun)
{
	static const char raw[] = "a\xe2\x82\xac" "b\ncdefghij";

	for (size_t size = 1; size < 24; size++) {
		char *shown = malloc(size);

		printable(span_of(raw), 100, shown, size);
		CHECK(strlen(shown) < size);
		CHECK(is_utf8(span_of(shown)));
		free(shown);
	}
}

TEST(a_buffer_that_is_just_long_enough_is_used)
{
	char shown[7];

	printable(span_of("abcdef"), 100, shown, sizeof shown);
	CHECK_STR("fits", shown, "abcdef");
	printable(span_of("abcdefg"), 100, shown, sizeof shown);
	CHECK_STR("does not", shown, "abc...");
}

static const struct {
	const char *text;
	int want;
	uint64_t bytes;
} sizes[] = {
	{ "0", 0, 0 },
	{ "512", 0, 512 },
	{ "4K", 0, 4096 },
	{ "4k", 0, 4096 },
	{ "4KB", 0, 4096 },
	{ "4KiB", 0, 4096 },
	{ "64M", 0, 64ull << 20 },
	{ "3G", 0, 3ull << 30 },
	{ "16T", 0, 16ull << 40 },
	{ "2PiB", 0, 2ull << 50 },
	{ "15E", 0, 15ull << 60 },
	{ "0E", 0, 0 },
	{ "18446744073709551615", 0, UINT64_MAX },
	{ "18446744073709551616", -ERANGE, 0 },
	{ "99999999999999999999999999999", -ERANGE, 0 },
	{ "16E", -ERANGE, 0 },
	{ "18014398509481983K", 0, UINT64_MAX - 1023 },
	{ "18014398509481984K", -ERANGE, 0 },
	{ "18446744073709551615P", -ERANGE, 0 },
	{ "99999999999999999999x", -EINVAL, 0 },
	{ "", -EINVAL, 0 },
	{ "M", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "+1", -EINVAL, 0 },
	{ " 1", -EINVAL, 0 },
	{ "1 ", -EINVAL, 0 },
	{ "1 M", -EINVAL, 0 },
	{ "1B", -EINVAL, 0 },
	{ "1iB", -EINVAL, 0 },
	{ "1Mi", -EINVAL, 0 },
	{ "1MM", -EINVAL, 0 },
	{ "1MiBx", -EINVAL, 0 },
	{ "1.5G", -EINVAL, 0 },
	{ "0x10", -EINVAL, 0 },
	{ "banana", -EINVAL, 0 },
};

TEST(sizes_are_read)
{
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		uint64_t bytes = 4711;

		CHECK_EQ(sizes[i].text, parse_size(sizes[i].text, &bytes), sizes[i].want);
		CHECK_EQ(sizes[i].text, bytes, sizes[i].want == 0 ? sizes[i].bytes : 4711);
	}
}

TEST(sizes_are_shown)
{
	static const struct {
		uint64_t bytes;
		const char *want;
	} shown[] = {
		{ 0, "0 bytes" },
		{ 1, "1 byte" },
		{ 1023, "1023 bytes" },
		{ 1024, "1 KiB" },
		{ 1536, "1.5 KiB" },
		{ 64ull << 20, "64 MiB" },
		{ (1ull << 20) - 1, "1 MiB" },
		{ (1ull << 30) + (1ull << 29), "1.5 GiB" },
		{ 16ull << 40, "16 TiB" },
		{ INT64_MAX, "8 EiB" },
		{ UINT64_MAX, "16 EiB" },
	};

	for (size_t i = 0; i < ARRAY_LEN(shown); i++) {
		char text[16];

		format_size(shown[i].bytes, text, sizeof text);
		CHECK_STR(shown[i].want, text, shown[i].want);
	}
}

TEST(yes_and_no_have_their_usual_words)
{
	static const char *const yes[] = { "yes", "true", "on", "1", "Yes", "TRUE" };
	static const char *const no[] = { "no", "false", "off", "0", "No" };
	static const char *const neither[] = { "", "y", "2", "yes ", "maybe", "01" };
	bool value;

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		value = false;
		CHECK_EQ(yes[i], parse_bool(yes[i], &value), 0);
		CHECK_EQ(yes[i], value, true);
	}
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		value = true;
		CHECK_EQ(no[i], parse_bool(no[i], &value), 0);
		CHECK_EQ(no[i], value, false);
	}
	for (size_t i = 0; i < ARRAY_LEN(neither); i++)
		CHECK_EQ(neither[i], parse_bool(neither[i], &value), -EINVAL);
}

TEST(a_unix_peer_is_shown_by_its_process)
{
	AUTO_FD ours = -1;
	AUTO_FD theirs = -1;
	char shown[PEER_TEXT_SIZE], want[PEER_TEXT_SIZE];
	int pair[2];

	CHECK_EQ("", socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ours = pair[0];
	theirs = pair[1];
	format_peer(ours, shown, sizeof shown);
	(void) snprintf(want, sizeof want, "unix:pid=%d,uid=%u", (int) getpid(), getuid());
	CHECK_STR("", shown, want);
}

/* Connects to a listener of family `family` at `listen_at`, and shows the accepted peer. */
static void show_peer(const struct sockaddr *listen_at, const struct sockaddr *connect_to,
                      socklen_t len, socklen_t connect_len, char *ret, size_t size)
{
	AUTO_FD listener = socket(listen_at->sa_family, SOCK_STREAM, 0);
	AUTO_FD client = socket(connect_to->sa_family, SOCK_STREAM, 0);
	AUTO_FD accepted = -1;
	struct sockaddr_in6 bound;
	struct sockaddr_storage to;
	socklen_t bound_len = sizeof bound;
	int off = 0;

	ret[0] = '\0';
	if (listen_at->sa_family == AF_INET6)
		(void) setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (bind(listener, listen_at, len) < 0 || listen(listener, 1) < 0)
		return;
	CHECK_EQ("", getsockname(listener, (struct sockaddr *) &bound, &bound_len), 0);
	memcpy(&to, connect_to, connect_len);
	/* The port is at the same place for both families. */
	((struct sockaddr_in *) &to)->sin_port = bound.sin6_port;
	CHECK_EQ("", connect(client, (struct sockaddr *) &to, connect_len), 0);
	accepted = accept(listener, NULL, NULL);
	format_peer(accepted, ret, size);
}

TEST(an_inet_peer_is_shown_by_its_address)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET,
	                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any };
	struct sockaddr_in6 loop6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	char shown[PEER_TEXT_SIZE];

	show_peer((void *) &v4, (void *) &v4, sizeof v4, sizeof v4, shown, sizeof shown);
	CHECK(strncmp(shown, "127.0.0.1:", 10) == 0);

	show_peer((void *) &loop6, (void *) &loop6, sizeof loop6, sizeof loop6, shown,
	          sizeof shown);
	if (!shown[0])
		return;                         /* no IPv6 on this host */
	CHECK(strncmp(shown, "[::1]:", 6) == 0);
	show_peer((void *) &any6, (void *) &v4, sizeof any6, sizeof v4, shown, sizeof shown);
	CHECK(strncmp(shown, "127.0.0.1:", 10) == 0);
}

TEST(a_descriptor_without_a_peer_is_shown_as_unknown)
{
	char shown[PEER_TEXT_SIZE];

	format_peer(-1, shown, sizeof shown);
	CHECK_STR("", shown, "unknown");
}

TEST(uris_are_escaped)
{
	char shown[32], tight[4];

	CHECK_EQ("", uri_escape("/run/a b?c%&#\xc3\xa4", shown, sizeof shown), 0);
	CHECK_STR("", shown, "/run/a%20b%3Fc%25%26%23%C3%A4");
	CHECK_EQ("fits", uri_escape(" ", tight, sizeof tight), 0);
	CHECK_STR("fits", tight, "%20");
	CHECK_EQ("does not", uri_escape(" a", tight, sizeof tight), -ENAMETOOLONG);
	CHECK_EQ("no room at all", uri_escape("", tight, 0), -ENAMETOOLONG);
}
