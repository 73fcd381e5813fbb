/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Turns addresses into sockets. */
#include "address.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "report.h"

#define PATIENCE_SECONDS 60     /* a server that is silent for longer is taken for dead */

static void parse_unix(const char *path, struct address *address)
{
	struct sockaddr_un *un = (struct sockaddr_un *) &address->socket;

	if (strlen(path) == 0 || strlen(path) >= sizeof un->sun_path)
		give_up("%s: a socket's path has 1 to %zu bytes", address->text,
		        sizeof un->sun_path - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	address->size = sizeof *un;
}

static void parse_tcp(const char *rest, struct address *address)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
	                         .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	const char *colon = strrchr(rest, ':');
	char host[128];

	if (!colon)
		give_up("%s: a TCP address is tcp:HOST:PORT", address->text);
	if (rest[0] == '[' && colon[-1] == ']')
		snprintf(host, sizeof host, "%.*s", (int) (colon - rest - 2), rest + 1);
	else
		snprintf(host, sizeof host, "%.*s", (int) (colon - rest), rest);
	int error = getaddrinfo(host, colon + 1, &hints, &found);

	if (error)
		give_up("%s: %s", address->text, gai_strerror(error));
	memcpy(&address->socket, found->ai_addr, found->ai_addrlen);
	address->size = found->ai_addrlen;
	freeaddrinfo(found);
}

void address_parse(const char *text, struct address *ret_address)
{
	struct address address = {.text = text};

	if (strncmp(text, "unix:", 5) == 0)
		parse_unix(text + 5, &address);
	else if (strncmp(text, "tcp:", 4) == 0)
		parse_tcp(text + 4, &address);
	else
		give_up("%s: an address is unix:PATH or tcp:HOST:PORT", text);
	*ret_address = address;
}

static int new_socket(const struct address *address, uint64_t socket_buffer)
{
	int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	int bytes = socket_buffer > INT_MAX / 2 ? INT_MAX / 2 : (int) socket_buffer;

	if (fd < 0)
		give_up("%s: no socket: %s", address->text, strerror(errno));
	if (address->socket.ss_family != AF_UNIX)
		(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bytes && (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) ||
	              setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes)))
		give_up("%s: socket buffers of %d bytes: %s", address->text, bytes,
		        strerror(errno));
	return fd;
}

int address_connect(const struct address *address, uint64_t socket_buffer)
{
	int fd = new_socket(address, socket_buffer);
	struct timeval patience = {.tv_sec = PATIENCE_SECONDS};

	(void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (connect(fd, (const struct sockaddr *) &address->socket, address->size))
		give_up("%s: cannot connect: %s", address->text, strerror(errno));
	return fd;
}

int address_listen(const struct address *address, uint64_t socket_buffer)
{
	int fd = new_socket(address, socket_buffer);
	int one = 1;

	if (address->socket.ss_family != AF_UNIX)
		(void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (const struct sockaddr *) &address->socket, address->size) ||
	    listen(fd, SOMAXCONN))
		give_up("%s: cannot listen: %s", address->text, strerror(errno));
	return fd;
}
