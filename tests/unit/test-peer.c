/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/peer.h"
#include "base/text.h"

static const struct {
	const char *text;
	enum peer_kind kind;
	const char *source;
} texts[] = {
	{ "192.0.2.1:4711", PEER_IPV4, "192.0.2.1" },
	{ "[2001:db8:1:2:3:4:5:6]:4711", PEER_IPV6, "2001:db8:1:2::/64" },
	{ "[::1]:4711", PEER_IPV6, "::/64" },
	{ "[fe80::1%2]:4711", PEER_IPV6, "fe80::/64" },
	{ "[::ffff:192.0.2.1]:4711", PEER_IPV4, "192.0.2.1" },
	{ "unix:pid=4711,uid=1000", PEER_LOCAL, "user 1000" },
	{ "unix", PEER_LOCAL, "user 4294967295" },
	{ "vsock:3:4711", PEER_VSOCK, "vsock context 3" },
	{ "unknown", PEER_UNKNOWN, "an unknown address" },
	{ "", PEER_UNKNOWN, "an unknown address" },
	{ "[", PEER_UNKNOWN, "an unknown address" },
	{ "[]:", PEER_UNKNOWN, "an unknown address" },
	{ "unix:pid=x,uid=1", PEER_UNKNOWN, "an unknown address" },
	{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  PEER_UNKNOWN, "an unknown address" },
};

TEST(a_peer_is_read_from_its_text)
{
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		char shown[PEER_SOURCE_TEXT_SIZE];
		struct peer peer, source;

		peer_parse(span_of(texts[i].text), &peer);
		CHECK_EQ(texts[i].text, peer.kind, texts[i].kind);
		peer_source(&peer, &source);
		peer_format_source(&source, shown, sizeof shown);
		CHECK_STR(texts[i].text, shown, texts[i].source);
	}
}

static bool same_source(const char *a, const char *b)
{
	struct peer x, y, source_x, source_y;

	peer_parse(span_of(a), &x);
	peer_parse(span_of(b), &y);
	peer_source(&x, &source_x);
	peer_source(&y, &source_y);
	return peer_equal(&source_x, &source_y);
}

TEST(a_source_is_an_address_a_64_or_a_user)
{
	CHECK(same_source("192.0.2.1:1", "192.0.2.1:2"));
	CHECK(!same_source("192.0.2.1:1", "192.0.2.2:1"));
	CHECK(same_source("192.0.2.1:1", "[::ffff:192.0.2.1]:1"));
	CHECK(same_source("[2001:db8::1]:1", "[2001:db8::ffff:0:0:1]:1"));
	CHECK(!same_source("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"));
	CHECK(same_source("unix:pid=1,uid=5", "unix:pid=2,uid=5"));
	CHECK(!same_source("unix:pid=1,uid=5", "unix:pid=1,uid=6"));
	CHECK(same_source("vsock:3:1", "vsock:3:9"));
	CHECK(!same_source("vsock:3:1", "vsock:4:1"));
}

/* What the socket tells and what its text tells are the same. */
static void compare(int fd, enum peer_kind kind)
{
	struct peer told, read_back;
	char text[PEER_TEXT_SIZE];

	peer_of(fd, &told);
	format_peer(fd, text, sizeof text);
	peer_parse(span_of(text), &read_back);
	CHECK_EQ(text, told.kind, kind);
	CHECK(peer_equal(&told, &read_back));
}

TEST(the_socket_tells_the_same_as_its_text)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	AUTO_FD listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_FD client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof in;
	int pair[2];

	CHECK_EQ("", bind(listener, (struct sockaddr *) &in, sizeof in), 0);
	CHECK_EQ("", listen(listener, 1), 0);
	CHECK_EQ("", getsockname(listener, (struct sockaddr *) &in, &len), 0);
	CHECK_EQ("", connect(client, (struct sockaddr *) &in, len), 0);
	compare(client, PEER_IPV4);

	CHECK_EQ("", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	compare(pair[0], PEER_LOCAL);
	close_fd(&pair[0]);
	close_fd(&pair[1]);
}
