/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opens sockets to listen on, and says how to reach one.  Removes a socket file only
 * when nobody listens on it, and never any other kind of file.
 */
#include "base/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/text.h"

#define HOST_SIZE 256u
#define PORT_SIZE 6u

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
	struct sockaddr_storage room;
};

/* An address as written, taken apart. */
struct endpoint {
	char host[HOST_SIZE];           /* without brackets */
	char port[PORT_SIZE];
	bool numeric;                   /* it stood in brackets: an IPv6 address */
};

static bool is_port(const char *text)
{
	uint64_t n;

	return strlen(text) < PORT_SIZE && strspn(text, "0123456789") == strlen(text) &&
	       parse_size(text, &n) == 0 && n <= UINT16_MAX;
}

/* Splits at the last colon; an IPv6 address needs its brackets, or that is a guess. */
static int split_address(const char *address, struct endpoint *ret, struct failure *why)
{
	const char *colon = strrchr(address, ':');
	const char *host = address;
	size_t len = colon ? (size_t) (colon - address) : 0;
	struct endpoint e = { 0 };

	if (len > 1 && host[0] == '[' && host[len - 1] == ']') {
		e.numeric = true;
		host++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof e.host || !is_port(colon + 1) ||
	    (!e.numeric && memchr(host, ':', len)))
		return fail_plain(why, EINVAL, "cannot listen on %s: not an address; write "
		                  "ADDRESS:PORT, as in 127.0.0.1:10809, [::1]:10809 or *:10809",
		                  address);
	memcpy(e.host, host, len);
	memcpy(e.port, colon + 1, strlen(colon + 1));
	*ret = e;
	return 0;
}

/* Listens on one address, IPv4 too if `both` and it is the IPv6 one for all.  -errno. */
static int listen_at(const struct sockaddr *at, socklen_t len, bool both, int *ret_fd)
{
	AUTO_FD fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, only_v6 = !both;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return -errno;
	if (at->sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6) < 0)
		return -errno;
	if (bind(fd, at, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Whether this host lacks the address or its whole family, so that another may do. */
static bool is_not_here(int r)
{
	return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL;
}

static int listen_everywhere(uint16_t port, int *ret_fd)
{
	struct sockaddr_in6 all6 = { .sin6_family = AF_INET6, .sin6_port = htons(port),
	                             .sin6_addr = in6addr_any };
	struct sockaddr_in all4 = { .sin_family = AF_INET, .sin_port = htons(port),
	                            .sin_addr.s_addr = htonl(INADDR_ANY) };
	int r = listen_at((struct sockaddr *) &all6, sizeof all6, true, ret_fd);

	if (is_not_here(r))
		r = listen_at((struct sockaddr *) &all4, sizeof all4, false, ret_fd);
	return r;
}

/* The first of a name's addresses that this host has. */
static int listen_by_name(const struct endpoint *e, const char *address, int *ret_fd,
                          struct failure *why)
{
	struct addrinfo hints = {
		.ai_family = e->numeric ? AF_INET6 : AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV | (e->numeric ? AI_NUMERICHOST : 0),
	};
	struct addrinfo *found;
	int r = getaddrinfo(e->host, e->port, &hints, &found);

	if (r == EAI_SYSTEM)
		return fail(why, errno, "cannot listen on %s: cannot look it up", address);
	if (r != 0)
		return fail_plain(why, EADDRNOTAVAIL, "cannot listen on %s: %s", address,
		                  gai_strerror(r));
	r = -EADDRNOTAVAIL;
	for (const struct addrinfo *a = found; a && is_not_here(r); a = a->ai_next)
		r = listen_at(a->ai_addr, a->ai_addrlen, false, ret_fd);
	freeaddrinfo(found);
	return r < 0 ? fail(why, -r, "cannot listen on %s", address) : 0;
}

int listen_tcp(const char *address, int *ret_fd, struct failure *why)
{
	struct endpoint e;
	uint64_t port;
	int r = split_address(address, &e, why);

	if (r < 0)
		return r;
	if (e.numeric || strcmp(e.host, "*") != 0)
		return listen_by_name(&e, address, ret_fd, why);
	(void) parse_size(e.port, &port);       /* split_address() has seen that it is one */
	r = listen_everywhere((uint16_t) port, ret_fd);
	return r < 0 ? fail(why, -r, "cannot listen on %s", address) : 0;
}

/* Removes the file that is in the way if it is a socket that nobody listens on. */
static int remove_stale(const struct sockaddr_un *at, int type, struct failure *why)
{
	AUTO_FD probe = -1;
	struct stat st;

	if (lstat(at->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : fail(why, errno, "cannot look at %s", at->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return fail_plain(why, EEXIST, "%s exists and is not a socket", at->sun_path);

	probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return fail(why, errno, "cannot make a socket");
	if (connect(probe, (const struct sockaddr *) at, sizeof *at) == 0 ||
	    errno == EAGAIN || errno == EPROTOTYPE)
		return fail_plain(why, EADDRINUSE, "somebody listens there already");
	if (errno != ECONNREFUSED && errno != ENOENT)
		return fail(why, errno, "cannot tell whether somebody listens there");
	if (unlink(at->sun_path) < 0 && errno != ENOENT)
		return fail(why, errno, "cannot remove the stale socket");
	return 0;
}

/* The socket's own mode becomes the file's at bind(), less the umask: there is no
 * moment in which others could connect. */
static int bind_unix(const struct sockaddr_un *at, int type, int *ret_fd, struct failure *why)
{
	AUTO_FD fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = fd < 0 || fchmod(fd, 0600) < 0 ? -errno : 0;

	if (r < 0)
		return fail(why, -r, "cannot make a socket");
	r = bind(fd, (const struct sockaddr *) at, sizeof *at);
	if (r < 0 && errno == EADDRINUSE) {
		r = remove_stale(at, type, why);
		if (r < 0)
			return r;
		r = bind(fd, (const struct sockaddr *) at, sizeof *at);
	}
	if (r < 0)
		return fail(why, errno, "cannot bind the socket");
	if (listen(fd, SOMAXCONN) < 0) {
		r = fail(why, errno, "cannot listen");
		(void) unlink(at->sun_path);
		return r;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

int listen_unix(const char *path, int type, int *ret_fd, struct failure *why)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len == 0)
		return fail_plain(why, EINVAL, "cannot listen on a socket: the path is empty");
	if (len >= sizeof at.sun_path)
		return fail_plain(why, ENAMETOOLONG, "cannot listen on %.300s: a socket's path "
		                  "has at most %zu bytes, this one has %zu", path,
		                  sizeof at.sun_path - 1, len);
	memcpy(at.sun_path, path, len);
	if (bind_unix(&at, type, ret_fd, why) < 0)
		return fail_while(why, "cannot listen on %s", path);
	return 0;
}

static int unix_uri(const struct sockaddr_un *un, socklen_t len, char *ret, size_t size)
{
	static const char start[] = "nbd+unix:///?socket=";
	char path[sizeof un->sun_path + 1] = "";

	if (len > offsetof(struct sockaddr_un, sun_path))
		memcpy(path, un->sun_path, len - offsetof(struct sockaddr_un, sun_path));
	if (!path[0])
		return -EADDRNOTAVAIL;          /* no name, or an abstract one */
	if (size < sizeof start)
		return -ENAMETOOLONG;
	memcpy(ret, start, sizeof start);
	return uri_escape(path, ret + strlen(start), size - strlen(start));
}

int listen_uri(int fd, char *ret, size_t size)
{
	union address own = { 0 };
	socklen_t len = sizeof own;
	char host[INET6_ADDRSTRLEN] = "";
	int n;

	if (getsockname(fd, &own.any, &len) < 0)
		return -errno;
	switch (own.any.sa_family) {
	case AF_UNIX:
		return unix_uri(&own.un, len, ret, size);
	case AF_INET:
		(void) inet_ntop(AF_INET, &own.in.sin_addr, host, sizeof host);
		n = snprintf(ret, size, "nbd://%s:%u", host, ntohs(own.in.sin_port));
		break;
	case AF_INET6:
		(void) inet_ntop(AF_INET6, &own.in6.sin6_addr, host, sizeof host);
		n = snprintf(ret, size, "nbd://[%s]:%u", host, ntohs(own.in6.sin6_port));
		break;
	default:
		return -EAFNOSUPPORT;
	}
	return n < 0 || (size_t) n >= size ? -ENAMETOOLONG : 0;
}
