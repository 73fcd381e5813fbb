/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What attaching takes from outside: URIs, sysfs (a folder of the test's), the line that the
 * kernel keeps, and servers that mean harm, each at the other end of a socketpair.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach/client.h"
#include "attach/device.h"
#include "attach/stream.h"
#include "attach/uri.h"
#include "base/attr.h"
#include "base/clock.h"
#include "scratch.h"

static const struct {
	const char *text;
	const char *host, *port, *socket, *name;        /* host and socket NULL: refused */
} uris[] = {
	{ "nbd://host", "host", "10809", "", "" },
	{ "nbd://host/", "host", "10809", "", "" },
	{ "nbd://host/db", "host", "10809", "", "db" },
	{ "nbd://192.0.2.1:4711/a/b", "192.0.2.1", "4711", "", "a/b" },
	{ "nbd://[2001:db8::1]/a%20b", "2001:db8::1", "10809", "", "a b" },
	{ "nbd://[::1]:1/caf%C3%a9", "::1", "1", "", "caf\xc3\xa9" },
	{ "nbd+unix:///db?socket=/run/x", "", "", "/run/x", "db" },
	{ "nbd+unix://?socket=/run/a%26b", "", "", "/run/a&b", "" },
	{ "nbd+unix:///?socket=/run/x&", "", "", "/run/x", "" },
	{ "", NULL, NULL, NULL, NULL },
	{ "host", NULL, NULL, NULL, NULL },
	{ "http://host", NULL, NULL, NULL, NULL },
	{ "nbd://", NULL, NULL, NULL, NULL },
	{ "nbd:///db", NULL, NULL, NULL, NULL },
	{ "nbd://me@host/db", NULL, NULL, NULL, NULL },
	{ "nbd://host:/db", NULL, NULL, NULL, NULL },
	{ "nbd://host:port/db", NULL, NULL, NULL, NULL },
	{ "nbd://host:1234567/db", NULL, NULL, NULL, NULL },
	{ "nbd://[::1/db", NULL, NULL, NULL, NULL },
	{ "nbd://[::1]x/db", NULL, NULL, NULL, NULL },
	{ "nbd://host/a b", NULL, NULL, NULL, NULL },
	{ "nbd://host/a%2", NULL, NULL, NULL, NULL },
	{ "nbd://host/a%zz", NULL, NULL, NULL, NULL },
	{ "nbd://host/a%00", NULL, NULL, NULL, NULL },
	{ "nbd://host/a#b", NULL, NULL, NULL, NULL },
	{ "nbd://host/a?tls-hostname=x", NULL, NULL, NULL, NULL },
	{ "nbd://host/a?socket=/run/x", NULL, NULL, NULL, NULL },
	{ "nbd+unix:///db", NULL, NULL, NULL, NULL },
	{ "nbd+unix:///db?socket=", NULL, NULL, NULL, NULL },
	{ "nbd+unix:///db?socket=run/x", NULL, NULL, NULL, NULL },
	{ "nbd+unix:///db?socket=/a&socket=/b", NULL, NULL, NULL, NULL },
	{ "nbd+unix://host/db?socket=/run/x", NULL, NULL, NULL, NULL },
};

TEST(uris_are_taken_apart_or_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
		static struct nbd_uri uri;
		struct failure why = { 0 };
		int r;

		memset(&uri, 0x5a, sizeof uri);
		r = nbd_uri_parse(uris[i].text, &uri, &why);
		CHECK_EQ(uris[i].text, r, uris[i].host ? 0 : -EINVAL);
		if (!uris[i].host || r < 0) {
			CHECK_EQ("untouched", uri.host[0], 0x5a);
			continue;
		}
		CHECK_STR(uris[i].text, uri.text, uris[i].text);
		CHECK_STR(uris[i].text, uri.host, uris[i].host);
		CHECK_STR(uris[i].text, uri.port, uris[i].port);
		CHECK_STR(uris[i].text, uri.socket, uris[i].socket);
		CHECK_STR(uris[i].text, uri.name, uris[i].name);
	}
}

TEST(uris_that_are_too_long_are_refused)
{
	static struct nbd_uri uri;
	static char text[NBD_URI_MAX + 100];
	struct failure why = { 0 };

	(void) strcpy(text, "nbd://host/");
	memset(text + strlen(text), 'x', NBD_URI_MAX - strlen(text));
	CHECK_EQ("the longest", nbd_uri_parse(text, &uri, &why), 0);
	text[NBD_URI_MAX] = 'x';
	CHECK_EQ("longer", nbd_uri_parse(text, &uri, &why), -EINVAL);
	why = (struct failure) { 0 };
	memset(text, 0, sizeof text);
	(void) strcpy(text, "nbd+unix:///?socket=/");
	memset(text + strlen(text), 's', 107);
	CHECK_EQ("a path of 108", nbd_uri_parse(text, &uri, &why), -EINVAL);
}

static const struct {
	const char *text;
	const char *host;               /* NULL: refused */
} tls_uris[] = {
	{ "nbd://host/db", "" },
	{ "nbds://host/db", "host" },
	{ "nbds://[2001:db8::1]/db", "2001:db8::1" },
	{ "nbds://192.0.2.1/db?tls-hostname=nbd.example", "nbd.example" },
	{ "nbds+unix:///db?socket=/s", "localhost" },
	{ "nbds+unix:///db?tls-hostname=a&socket=/s", "a" },
	{ "nbd://host/db?tls-hostname=a", NULL },
	{ "nbds://host/db?tls-hostname=", NULL },
	{ "nbds://host/db?tls-hostname=a&tls-hostname=b", NULL },
	{ "nbds://host/db?tls-certificates=/etc", NULL },
	{ "nbds://alice@host/db", NULL },
};

TEST(with_tls_it_is_known_whose_certificate_it_must_be)
{
	for (size_t i = 0; i < ARRAY_LEN(tls_uris); i++) {
		static struct nbd_uri uri;
		struct failure why = { 0 };
		int r = nbd_uri_parse(tls_uris[i].text, &uri, &why);

		CHECK_EQ(tls_uris[i].text, r, tls_uris[i].host ? 0 : -EINVAL);
		if (r == 0)
			CHECK_STR(tls_uris[i].text, uri.tls_host, tls_uris[i].host);
	}
}

TEST(the_line_that_the_kernel_keeps_is_read_as_it_was_written)
{
	static struct attach_identity id = { .name = "db", .connections = 4,
	                                     .uri = "nbd://host/db" }, back;
	static const char *const bad[] = {
		"", "db", "nbd-export/1 ", "nbd-export/1 db", "nbd-export/1 db 4", "nbd-export/1 db 4 ",
		"nbd-export/1 db x nbd://h", "nbd-export/1 db 0 nbd://h", "nbd-export/1 db 65 nbd://h",
		"nbd-export/1 db 4 nbd://h x", "nbd-export/2 db 4 nbd://h", "nbd-export/1  4 nbd://h",
		"nbd-export/1 db -1 nbd://h", "nbd-export/1 db 99999999 nbd://h",
	};
	char text[ATTACH_IDENTITY_MAX];

	identity_format(&id, text);
	CHECK_STR("", text, "nbd-export/1 db 4 nbd://host/db");
	CHECK(identity_parse(text, &back) && strcmp(back.name, "db") == 0);
	CHECK(back.connections == 4 && strcmp(back.uri, id.uri) == 0);
	id.name[0] = '\0';
	identity_format(&id, text);
	CHECK(identity_parse(text, &back) && back.name[0] == '\0');
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_EQ(bad[i], identity_parse(bad[i], &back), false);
}

TEST(names_are_words)
{
	static const char *const good[] = { "a", "db-1", "A:b_c.d" };
	static const char *const bad[] = { "", "-", "-a", ".a", "a b", "a/b", "\xc3\xa9" };

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct failure why = { 0 };

		CHECK_EQ(good[i], attach_name_check(good[i], &why), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct failure why = { 0 };

		CHECK_EQ(bad[i], attach_name_check(bad[i], &why), -EINVAL);
	}
}

static void write_attribute(struct scratch *s, const char *name, const char *text)
{
	(void) scratch_write(s, name, text, strlen(text));
}

TEST(sysfs_tells_of_devices)
{
	struct scratch s = scratch_start();
	struct nbd_state *list = NULL, state = { .index = 99 };
	struct failure why = { 0 };
	size_t n = 99;

	CHECK_EQ("none", nbd_state_list(s.dir, &list, &n, &why), 0);
	CHECK_EQ("", n, 0);
	free(list);
	for (int i = 0; i < 3; i++) {
		static const char *const devices[] = { "nbd10", "nbd2", "nbd7" };

		CHECK_EQ("", mkdir(scratch_path(&s, devices[i]), 0700), 0);
	}
	CHECK_EQ("", mkdir(scratch_path(&s, "nbd2p1"), 0700), 0);
	write_attribute(&s, "nbd10/pid", "4711\n");
	write_attribute(&s, "nbd10/size", "2048\n");
	write_attribute(&s, "nbd10/ro", "1\n");
	write_attribute(&s, "nbd10/backend", "nbd-export/1 db 2 nbd://h/db\n");
	write_attribute(&s, "nbd2/pid", "4712\n");
	write_attribute(&s, "nbd2/backend", "another's\n");
	CHECK_EQ(why.text, nbd_state_list(s.dir, &list, &n, &why), 0);
	CHECK_EQ("nbd7 is not connected", n, 2);
	CHECK(list[0].index == 2 && !list[0].ours && !list[0].read_only && list[0].size == 0);
	CHECK(list[1].index == 10 && list[1].ours && list[1].read_only);
	CHECK_EQ("", list[1].size, 1 << 20);
	CHECK_STR("", list[1].identity.name, "db");
	free(list);
	CHECK(nbd_state_read(s.dir, 7, &state) && !state.connected && state.index == 7);
	CHECK(!nbd_state_read(s.dir, 8, &state));
	scratch_end(&s);
}

TEST(requests_are_only_ever_made_smaller)
{
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	char text[16] = "";
	FILE *in;

	CHECK_EQ("", mkdir(scratch_path(&s, "nbd1"), 0700), 0);
	CHECK_EQ("", mkdir(scratch_path(&s, "nbd1/queue"), 0700), 0);
	write_attribute(&s, "nbd1/queue/max_sectors_kb", "1280\n");
	CHECK_EQ("", nbd_limit_requests(s.dir, 1, 0, &why), 0);
	CHECK_EQ("", nbd_limit_requests(s.dir, 1, UINT32_MAX, &why), 0);
	CHECK_EQ("", nbd_limit_requests(s.dir, 1, 65536, &why), 0);
	in = fopen(scratch_path(&s, "nbd1/queue/max_sectors_kb"), "r");
	CHECK(in && fgets(text, sizeof text, in) && strncmp(text, "64", 2) == 0);
	if (in)
		(void) fclose(in);
	CHECK_EQ("not there", nbd_limit_requests(s.dir, 2, 65536, &why), 0);
	scratch_end(&s);
}

TEST(devices_are_named_by_their_path)
{
	static const char *const bad[] = { "/dev/nbd", "/dev/nbdx", "/dev/nbd1p1", "/dev/null", "nbd1",
	                                   "/tmp/nbd1", "" };
	struct failure why = { 0 };
	int index = -7;

	CHECK_EQ(why.text, nbd_index_of("/dev/nbd12345", &index, &why), 0);
	CHECK_EQ("", index, 12345);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct failure here = { 0 };

		CHECK_EQ(bad[i], nbd_index_of(bad[i], &index, &here), -EINVAL);
	}
}

/* A server's side of a conversation: it sends all at once, and then ends or keeps silent. */
struct server {
	const char *what;
	const uint8_t *at;
	size_t len;
	int want;                       /* of client_negotiate() */
	const char *sentence;
};

#define GREETING U64(NBD_MAGIC), U64(NBD_OPTS_MAGIC), U16(3)
#define ANSWER(option, type, length) U64(NBD_REP_MAGIC), U32(option), U32(type), U32(length)
#define SIZE ANSWER(7, 3, 12), U16(0), U64(1 << 20), U16(0x16d)
#define ERROR(n) (0x80000000u | (n))

static const struct server servers[] = {
	{ "a good one", BYTES(GREETING, SIZE, ANSWER(7, 3, 14), U16(3), U32(1), U32(4096),
	                      U32(1 << 25), ANSWER(7, 1, 0)), 0, NULL },
	{ "one without GO", BYTES(GREETING, ANSWER(7, ERROR(1), 0), U64(1 << 20), U16(0x16d)), 0,
	  NULL },
	{ "nothing at all", BYTES(0), -ECONNRESET, "closed the connection" },
	{ "a greeting of HTTP", BYTES(U64(0x485454502f312e31), U64(1), U16(1)), -EPROTO,
	  "no NBD server" },
	{ "an end after the greeting", BYTES(GREETING), -ECONNRESET, "closed the connection" },
	{ "no such export", BYTES(GREETING, ANSWER(7, ERROR(6), 0)), -ENOENT, "no export" },
	{ "one with words", BYTES(GREETING, ANSWER(7, ERROR(6), 3), 'n', 'o', '\n'), -ENOENT,
	  "it says: no\xef\xbf\xbd" },
	{ "an unknown error", BYTES(GREETING, ANSWER(7, ERROR(99), 0)), -ECONNREFUSED, "refuses" },
	{ "TLS wanted", BYTES(GREETING, ANSWER(7, ERROR(5), 0)), -EPROTONOSUPPORT, "nbds://" },
	{ "an answer too long", BYTES(GREETING, ANSWER(7, 3, 0xffffffff)), -EPROTO, "too long" },
	{ "another's answer", BYTES(GREETING, ANSWER(6, 1, 0)), -EPROTO, "not asked" },
	{ "no size", BYTES(GREETING, ANSWER(7, 1, 0)), -EPROTO, "what size" },
	{ "an acknowledgement with a payload", BYTES(GREETING, SIZE, ANSWER(7, 1, 1), 0), -EPROTO,
	  "not asked" },
	{ "a list of exports", BYTES(GREETING, ANSWER(7, 2, 0)), -EPROTO, "not asked" },
	{ "a size that is cut", BYTES(GREETING, ANSWER(7, 3, 12), U16(0), U64(1)), -ECONNRESET,
	  "closed" },
	{ "a size of the wrong length", BYTES(GREETING, ANSWER(7, 3, 11), U16(0), U64(1), 0),
	  -EPROTO, "wrong length" },
	{ "block sizes of 0", BYTES(GREETING, SIZE, ANSWER(7, 3, 14), U16(3), U32(0), U32(0), U32(0)),
	  -EPROTO, "contradict" },
};

/* What client_negotiate() makes of bytes that a server sends; `end`: and closes. */
static int negotiate(const uint8_t *at, size_t len, bool end, struct failure *why,
                     struct export_facts *ret, size_t *ret_left)
{
	const struct client_limits limits = {
		.deadline = monotonic_us() + (end ? 20000000 : 50000), .cancel_fd = -1,
	};
	int pair[2], r;
	char rest[4096];
	ssize_t n;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	CHECK_EQ("sent", send(pair[1], at, len, MSG_NOSIGNAL), (ssize_t) len);
	if (end)
		(void) shutdown(pair[1], SHUT_WR);
	r = client_negotiate(pair[0], "db", &limits, ret, why);
	n = recv(pair[0], rest, sizeof rest, 0);
	*ret_left = n > 0 ? (size_t) n : 0;
	(void) close(pair[0]);
	(void) close(pair[1]);
	return r;
}

TEST(hostile_servers_are_refused_with_words)
{
	for (size_t i = 0; i < ARRAY_LEN(servers); i++) {
		struct export_facts facts = { .size = 99 };
		struct failure why = { 0 };
		size_t left, len = servers[i].want == 0 || servers[i].len > 1 ? servers[i].len : 0;

		CHECK_EQ(servers[i].what, negotiate(servers[i].at, len, true, &why, &facts, &left),
		         servers[i].want);
		if (servers[i].want == 0)
			CHECK(facts.size == 1 << 20 && facts.flags == 0x16d && left == 0);
		else
			CHECK_EQ(servers[i].what, facts.size, 99);
		if (servers[i].sentence && !strstr(why.text, servers[i].sentence))
			CHECK_STR(servers[i].what, why.text, servers[i].sentence);
	}
}

TEST(every_truncation_is_the_end_of_the_connection)
{
	for (size_t len = 0; len < servers[0].len; len++) {
		struct export_facts facts;
		struct failure why = { 0 };
		size_t left;

		CHECK_EQ("", negotiate(servers[0].at, len, true, &why, &facts, &left), -ECONNRESET);
	}
}

TEST(no_byte_of_the_transmission_phase_is_taken)
{
	uint8_t more[256] = { 0 };
	struct export_facts facts;
	struct failure why = { 0 };
	size_t left;

	memcpy(more, servers[0].at, servers[0].len);
	CHECK_EQ("", negotiate(more, servers[0].len + 7, true, &why, &facts, &left), 0);
	CHECK_EQ("", left, 7);
}

TEST(a_silent_server_costs_no_more_than_the_deadline)
{
	struct export_facts facts;
	struct failure why = { 0 };
	uint64_t start = monotonic_us();
	size_t left;

	CHECK_EQ("", negotiate(servers[0].at, 30, false, &why, &facts, &left), -ETIMEDOUT);
	CHECK(monotonic_us() - start < 15000000);
	CHECK(strstr(why.text, "in time") != NULL);
}

TEST(one_that_never_ends_its_information_is_refused)
{
	static const uint8_t greeting[] = { GREETING }, name[] = { ANSWER(7, 3, 2), U16(1) };
	static uint8_t all[sizeof greeting + 100 * sizeof name];
	struct export_facts facts;
	struct failure why = { 0 };
	size_t left;

	memcpy(all, greeting, sizeof greeting);
	for (size_t i = 0; i < 100; i++)
		memcpy(all + sizeof greeting + i * sizeof name, name, sizeof name);
	CHECK_EQ("", negotiate(all, sizeof all, true, &why, &facts, &left), -EPROTO);
	CHECK(strstr(why.text, "more than an export has") != NULL);
}

TEST(who_is_told_to_stop_stops_waiting)
{
	int pair[2], stop[2];
	struct client_limits limits = { .deadline = monotonic_us() + 60000000 };
	struct export_facts facts;
	struct failure why = { 0 };

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
	    pipe2(stop, O_CLOEXEC) < 0)
		abort();
	limits.cancel_fd = stop[0];
	CHECK_EQ("", write(stop[1], "x", 1), 1);
	CHECK_EQ("", client_negotiate(pair[0], "db", &limits, &facts, &why), -ECANCELED);
	for (int i = 0; i < 2; i++) {
		(void) close(pair[i]);
		(void) close(stop[i]);
	}
}
