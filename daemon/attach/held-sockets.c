/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tells sockets that the kernel shut down by POLLHUP, which needs both directions. */
#include "attach/held-sockets.h"

#include <poll.h>
#include <sys/socket.h>

#include "base/attr.h"

void held_sockets_init(struct held_sockets *h)
{
	for (size_t i = 0; i < ARRAY_LEN(h->fds); i++)
		h->fds[i] = -1;
}

void held_sockets_add(struct held_sockets *h, int fd)
{
	for (size_t i = 0; i < ARRAY_LEN(h->fds); i++) {
		if (h->fds[i] < 0) {
			h->fds[i] = fd;
			return;
		}
	}
	close_fd(&fd);
}

/* TCP takes "no address" for a reset, and forgets what it had to send.  A unix socket has
 * nothing. */
static void abort_socket(int *fd)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };

	(void) connect(*fd, &none, sizeof none);
	close_fd(fd);
}

size_t held_sockets_abort_dead(struct held_sockets *h)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(h->fds); i++) {
		struct pollfd polled = { .fd = h->fds[i] };

		if (h->fds[i] < 0 || poll(&polled, 1, 0) <= 0 ||
		    !(polled.revents & (POLLHUP | POLLERR)))
			continue;
		abort_socket(&h->fds[i]);
		n++;
	}
	return n;
}

void held_sockets_close(struct held_sockets *h)
{
	for (size_t i = 0; i < ARRAY_LEN(h->fds); i++)
		close_fd(&h->fds[i]);
}
