/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tells sockets that the kernel shut down by POLLHUP, which needs both directions. */
#include "attach/held-sockets.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/attr.h"

void held_sockets_init(struct held_sockets *h, sd_event *event)
{
	*h = (struct held_sockets) { .event = event };
	for (size_t i = 0; i < ARRAY_LEN(h->all); i++)
		h->all[i].fd = -1;
}

static void let_go(struct held_socket *s)
{
	s->end = sd_event_source_disable_unref(s->end);
	close_fd(&s->fd);
}

/* TCP takes "no address" for a reset, and forgets what it had to send.  A unix socket has
 * nothing.  Some kernels want whoever still waits in the socket to be out of it first; false. */
static bool abort_socket(struct held_socket *s)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };

	if (connect(s->fd, &none, sizeof none) < 0 && errno == EBUSY)
		return false;
	let_go(s);
	return true;
}

static int on_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void) source, (void) fd, (void) events;
	(void) abort_socket(userdata);
	return 0;
}

void held_sockets_add(struct held_sockets *h, int fd, uint64_t size)
{
	for (size_t i = 0; i < ARRAY_LEN(h->all); i++) {
		struct held_socket *s = &h->all[i];

		if (s->fd >= 0)
			continue;
		*s = (struct held_socket) { .fd = fd, .size = size };
		if (h->event)           /* HUP and ERR come unasked; without it, when asked */
			(void) sd_event_add_io(h->event, &s->end, fd, 0, on_end, s);
		return;
	}
	close_fd(&fd);
}

size_t held_sockets_abort_dead(struct held_sockets *h)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(h->all); i++) {
		struct pollfd polled = { .fd = h->all[i].fd };

		if (polled.fd < 0 || poll(&polled, 1, 0) <= 0 ||
		    !(polled.revents & (POLLHUP | POLLERR)))
			continue;
		n += abort_socket(&h->all[i]);
	}
	return n;
}

bool held_sockets_least(const struct held_sockets *h, size_t n, uint64_t *ret)
{
	uint64_t least = UINT64_MAX;
	size_t n_held = 0;

	for (size_t i = 0; i < ARRAY_LEN(h->all); i++) {
		if (h->all[i].fd < 0)
			continue;
		n_held++;
		if (h->all[i].size < least)
			least = h->all[i].size;
	}
	if (n_held != n || n == 0)
		return false;
	*ret = least;
	return true;
}

void held_sockets_close(struct held_sockets *h)
{
	for (size_t i = 0; i < ARRAY_LEN(h->all); i++)
		let_go(&h->all[i]);
}
