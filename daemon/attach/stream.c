/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets with a deadline. */
#include "attach/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"
#include "base/clock.h"

#define KEEPALIVE_IDLE 10               /* seconds; 3 probes after that, as far apart as this */

int stream_wait(int fd, short events, const struct client_limits *limits, struct failure *why)
{
	struct pollfd polled[2] = {
		{ .fd = fd, .events = events }, { .fd = limits->cancel_fd, .events = POLLIN },
	};

	for (;;) {
		uint64_t now = monotonic_us();
		uint64_t left = limits->deadline > now ? (limits->deadline - now + 999) / 1000 : 0;
		int n;

		if (left == 0)
			return fail_plain(why, ETIMEDOUT, "the server does not answer in time");
		n = poll(polled, 2, left < 60000 ? (int) left : 60000);
		if (n < 0 && errno != EINTR)
			return fail(why, errno, "cannot wait for the server");
		if (n > 0 && polled[1].revents)
			return fail_plain(why, ECANCELED, "stopped while waiting for the server");
		if (n > 0)
			return 0;
	}
}

int stream_read(const struct stream *s, void *ret, size_t len, struct failure *why)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = recv(s->fd, (char *) ret + got, len - got, 0);
		int r = 0;

		if (n > 0)
			got += (size_t) n;
		else if (n == 0)
			return fail_plain(why, ECONNRESET, "the server closed the connection in "
			                  "the handshake");
		else if (errno == EAGAIN)
			r = stream_wait(s->fd, POLLIN, s->limits, why);
		else if (errno != EINTR)
			return fail(why, errno, "the connection broke in the handshake");
		if (r < 0)
			return r;
	}
	return 0;
}

int stream_write(const struct stream *s, const void *from, size_t len, struct failure *why)
{
	for (size_t sent = 0; sent < len;) {
		ssize_t n = send(s->fd, (const char *) from + sent, len - sent, MSG_NOSIGNAL);
		int r = 0;

		if (n >= 0)
			sent += (size_t) n;
		else if (errno == EAGAIN)
			r = stream_wait(s->fd, POLLOUT, s->limits, why);
		else if (errno != EINTR)
			return fail(why, errno, "the connection broke in the handshake");
		if (r < 0)
			return r;
	}
	return 0;
}

/* Starts to connect and waits until that is decided. */
static int connect_socket(int fd, const struct sockaddr *address, socklen_t len,
                          const struct client_limits *limits, struct failure *why)
{
	socklen_t size = sizeof(int);
	int error = 0, r;

	if (connect(fd, address, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return fail(why, errno, "cannot connect");
	r = stream_wait(fd, POLLOUT, limits, why);
	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	return error ? fail(why, error, "cannot connect") : 0;
}

static int connect_unix(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                        struct failure *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return fail(why, errno, "cannot make a socket");
	memcpy(address.sun_path, uri->socket, sizeof address.sun_path);
	r = connect_socket(fd, (const struct sockaddr *) &address, sizeof address, limits, why);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

/*
 * A peer that vanished without a word is noticed also when there is no request to wait for.
 *
 * And what was not sent when the socket is closed is not sent at all: the kernel's driver sends
 * the requests of a dead connection again over another, and closes the dead one; a WRITE of it
 * that TCP delivered after that could undo a newer one.
 */
static void set_tcp_options(int fd)
{
	const struct linger discard = { .l_onoff = 1, .l_linger = 0 };
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_IDLE },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name, &options[i].value,
		                  sizeof options[i].value);
	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &discard, sizeof discard);
}

static int connect_address(const struct addrinfo *a, const struct client_limits *limits,
                           int *ret_fd, struct failure *why)
{
	AUTO_FD fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
	                    a->ai_protocol);
	int r;

	if (fd < 0)
		return fail(why, errno, "cannot make a socket");
	r = connect_socket(fd, a->ai_addr, a->ai_addrlen, limits, why);
	if (r < 0)
		return r;
	set_tcp_options(fd);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Of the time that is left, for the first of the addresses from `a` on. */
static struct client_limits share_of(const struct client_limits *limits, const struct addrinfo *a)
{
	struct client_limits share = *limits;
	uint64_t now = monotonic_us(), n = 0;

	for (; a; a = a->ai_next)
		n++;
	if (now < limits->deadline && n > 0)
		share.deadline = now + (limits->deadline - now) / n;
	return share;
}

int stream_connect_first(const struct addrinfo *all, const struct client_limits *limits,
                         int *ret_fd, struct failure *why)
{
	int r = -EHOSTUNREACH;

	for (const struct addrinfo *a = all; a && r < 0 && r != -ECANCELED; a = a->ai_next) {
		const struct client_limits share = share_of(limits, a);

		*why = (struct failure) { 0 };
		r = connect_address(a, &share, ret_fd, why);
	}
	return r;
}

static int connect_tcp(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                       struct failure *why)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *all;
	int r = getaddrinfo(uri->host, uri->port, &hints, &all);

	if (r)
		return fail_plain(why, r == EAI_SYSTEM ? errno : EHOSTUNREACH,
		                  "cannot find the host %.128s: %s", uri->host, gai_strerror(r));
	r = stream_connect_first(all, limits, ret_fd, why);
	freeaddrinfo(all);
	return r;
}

int stream_connect(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                   struct failure *why)
{
	if (*uri->socket)
		return connect_unix(uri, limits, ret_fd, why);
	return connect_tcp(uri, limits, ret_fd, why);
}

int stream_make_blocking(int fd, struct failure *why)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return fail(why, errno, "cannot make a socket blocking");
	return 0;
}
