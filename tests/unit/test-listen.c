/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/listen.h"
#include "scratch.h"

static int connect_unix(const char *path, int type)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	AUTO_FD fd = socket(AF_UNIX, type, 0);

	memcpy(at.sun_path, path, strlen(path) + 1);
	return connect(fd, (struct sockaddr *) &at, sizeof at) < 0 ? -errno : 0;
}

/* Connects over IPv4 to the port that `listener` has, whatever its family. */
static int connect_ipv4(int listener)
{
	struct sockaddr_in6 own;
	struct sockaddr_in to = { .sin_family = AF_INET,
	                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof own;
	AUTO_FD fd = socket(AF_INET, SOCK_STREAM, 0);

	if (getsockname(listener, (struct sockaddr *) &own, &len) < 0)
		return -errno;
	to.sin_port = own.sin6_port;            /* at the same place for both families */
	return connect(fd, (struct sockaddr *) &to, sizeof to) < 0 ? -errno : 0;
}

TEST(tcp_takes_a_free_port_and_tells_its_uri)
{
	struct failure why = { 0 };
	AUTO_FD fd = -1;
	char uri[64];

	CHECK_EQ(why.text, listen_tcp("127.0.0.1:0", &fd, &why), 0);
	CHECK_EQ("", listen_uri(fd, uri, sizeof uri), 0);
	CHECK(strncmp(uri, "nbd://127.0.0.1:", 16) == 0 && strcmp(uri + 16, "0") != 0);
	CHECK_EQ("close on exec", fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK_EQ("", connect_ipv4(fd), 0);
	CHECK_EQ("too small", listen_uri(fd, uri, 8), -ENAMETOOLONG);
}

TEST(a_tcp_address_in_use_is_named)
{
	struct failure why = { 0 };
	AUTO_FD fd = -1;
	int second = -1;
	char uri[64];

	CHECK_EQ("", listen_tcp("127.0.0.1:0", &fd, &why), 0);
	CHECK_EQ("", listen_uri(fd, uri, sizeof uri), 0);
	CHECK_EQ("", listen_tcp(uri + strlen("nbd://"), &second, &why), -EADDRINUSE);
	CHECK_EQ("untouched", second, -1);
	CHECK(strstr(why.text, uri + strlen("nbd://")) != NULL);
}

TEST(localhost_and_everywhere_can_be_reached)
{
	static const char *const addresses[] = { "*:0", "0.0.0.0:0", "localhost:0" };

	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		struct failure why = { 0 };
		AUTO_FD fd = -1;
		char uri[64];

		CHECK_EQ(addresses[i], listen_tcp(addresses[i], &fd, &why), 0);
		CHECK_EQ(addresses[i], listen_uri(fd, uri, sizeof uri), 0);
		if (!strstr(uri, "[::1]"))      /* which localhost may be */
			CHECK_EQ(addresses[i], connect_ipv4(fd), 0);
	}
}

TEST(ipv6_is_in_brackets)
{
	struct failure why = { 0 };
	AUTO_FD fd = -1;
	char uri[64];
	int r = listen_tcp("[::1]:0", &fd, &why);

	if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL)
		return;                         /* no IPv6 on this host */
	CHECK_EQ(why.text, r, 0);
	CHECK_EQ("", listen_uri(fd, uri, sizeof uri), 0);
	CHECK(strncmp(uri, "nbd://[::1]:", 12) == 0);
}

TEST(what_is_no_address_is_named)
{
	static const char *const bad[] = {
		"", ":", "10809", ":10809", "[]:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
		"127.0.0.1:65536", "127.0.0.1:99999999999999999999", "127.0.0.1:-1",
		"127.0.0.1: 1", "::1:10809", "[::1]", "[::1:10809", "::1]:10809", "127.0.0.1:1K",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct failure why = { 0 };
		int fd = -1;

		CHECK_EQ(bad[i], listen_tcp(bad[i], &fd, &why), -EINVAL);
		CHECK_EQ(bad[i], fd, -1);
		CHECK(strstr(why.text, bad[i]) != NULL);
	}
}

TEST(an_address_that_cannot_be_looked_up_is_named)
{
	struct failure why = { 0 };
	int fd = -1;

	CHECK(listen_tcp("[127.0.0.1]:10809", &fd, &why) < 0);
	CHECK(strstr(why.text, "cannot listen on [127.0.0.1]:10809: ") != NULL);
}

TEST(a_unix_socket_is_for_its_owner_and_can_be_reached)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	struct scratch s = scratch_start();
	const char *path = scratch_path(&s, "a b");

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct failure why = { 0 };
		AUTO_FD fd = -1;
		struct stat st;
		char uri[256], want[256];

		CHECK_EQ(why.text, listen_unix(path, types[i], &fd, &why), 0);
		CHECK_EQ("", stat(path, &st), 0);
		CHECK_EQ("mode", st.st_mode & 07777, 0600);
		CHECK_EQ("close on exec", fcntl(fd, F_GETFD), FD_CLOEXEC);
		CHECK_EQ("", connect_unix(path, types[i]), 0);
		CHECK_EQ("", listen_uri(fd, uri, sizeof uri), 0);
		(void) snprintf(want, sizeof want, "nbd+unix:///?socket=%s/a%%20b", s.dir);
		CHECK_STR("", uri, want);
	}
	scratch_end(&s);
}

TEST(a_stale_socket_is_replaced)
{
	struct scratch s = scratch_start();
	const char *path = scratch_path(&s, "sock");
	struct failure why = { 0 };
	int fd = -1;

	CHECK_EQ(why.text, listen_unix(path, SOCK_STREAM, &fd, &why), 0);
	close_fd(&fd);
	CHECK_EQ("stale", connect_unix(path, SOCK_STREAM), -ECONNREFUSED);
	CHECK_EQ(why.text, listen_unix(path, SOCK_SEQPACKET, &fd, &why), 0);
	CHECK_EQ("fresh", connect_unix(path, SOCK_SEQPACKET), 0);
	close_fd(&fd);
	scratch_end(&s);
}

TEST(a_socket_in_use_is_left_alone)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	struct scratch s = scratch_start();
	const char *path = scratch_path(&s, "sock");
	struct failure why = { 0 };
	AUTO_FD fd = -1;

	CHECK_EQ(why.text, listen_unix(path, SOCK_STREAM, &fd, &why), 0);
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct failure again = { 0 };
		int second = -1;

		CHECK_EQ("", listen_unix(path, types[i], &second, &again), -EADDRINUSE);
		CHECK_EQ("", second, -1);
		CHECK(strstr(again.text, path) != NULL);
	}
	CHECK_EQ("still there", connect_unix(path, SOCK_STREAM), 0);
	scratch_end(&s);
}

TEST(other_files_are_left_alone)
{
	struct scratch s = scratch_start();
	const char *path = scratch_write(&s, "precious", "data", 4);
	struct failure why = { 0 };
	struct stat st;
	int fd = -1;

	CHECK_EQ("", listen_unix(path, SOCK_STREAM, &fd, &why), -EEXIST);
	CHECK(strstr(why.text, path) != NULL);
	CHECK_EQ("", stat(path, &st), 0);
	CHECK_EQ("", st.st_size, 4);

	/* Not even a link to a socket that is stale. */
	why.code = 0;
	CHECK_EQ("", symlink("nowhere", scratch_path(&s, "link")), 0);
	CHECK_EQ("", listen_unix(scratch_path(&s, "link"), SOCK_STREAM, &fd, &why), -EEXIST);
	CHECK_EQ("", lstat(scratch_path(&s, "link"), &st), 0);
	scratch_end(&s);
}

TEST(the_longest_path_works_and_a_longer_one_is_named)
{
	struct scratch s = scratch_start();
	char name[128] = "";
	struct failure why = { 0 };
	AUTO_FD fd = -1;
	char uri[400];

	memset(name, 'x', 107 - strlen(s.dir) - 1);
	CHECK_EQ("", strlen(scratch_path(&s, name)), 107);
	CHECK_EQ(why.text, listen_unix(scratch_path(&s, name), SOCK_STREAM, &fd, &why), 0);
	CHECK_EQ("", connect_unix(scratch_path(&s, name), SOCK_STREAM), 0);
	CHECK_EQ("", listen_uri(fd, uri, sizeof uri), 0);
	CHECK_EQ("whole", strlen(uri), strlen("nbd+unix:///?socket=") + 107);

	name[strlen(name)] = 'y';
	CHECK_EQ("", listen_unix(scratch_path(&s, name), SOCK_STREAM, &fd, &why), -ENAMETOOLONG);
	CHECK(strstr(why.text, scratch_path(&s, name)) != NULL && strstr(why.text, "107") != NULL);
	scratch_end(&s);
}

TEST(a_missing_folder_is_named)
{
	struct failure why = { 0 };
	int fd = -1;

	CHECK_EQ("", listen_unix("/nonexistent/sock", SOCK_STREAM, &fd, &why), -ENOENT);
	CHECK(strstr(why.text, "/nonexistent/sock") != NULL);
	why.code = 0;
	CHECK_EQ("", listen_unix("", SOCK_STREAM, &fd, &why), -EINVAL);
}
