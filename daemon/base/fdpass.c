/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records with descriptors.  Knows nothing of what is in a record; never leaks a
 * descriptor that a peer sent, however many there are and whatever else is wrong.
 */
#include "base/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"

#define MAX_RECEIVED_FDS 4u     /* one is right; more are counted, so that they can be told */

int connect_records(const char *path, int *ret_fd)
{
	AUTO_FD fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (const struct sockaddr *) &address, sizeof address) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int send_record(int channel, const void *record, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec body = { .iov_base = (void *) record, .iov_len = len };
	struct msghdr msg = { .msg_iov = &body, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd >= 0) {
		struct cmsghdr *rights;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
		rights = CMSG_FIRSTHDR(&msg);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(rights), &fd, sizeof fd);
	}
	do
		sent = sendmsg(channel, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* Keeps the first descriptor and closes the others.  Returns how many came. */
static unsigned collect_fds(struct msghdr *msg, int *ret_fd)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n_here;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n_here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n_here; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (n++ == 0)
				*ret_fd = fd;
			else
				close_fd(&fd);
		}
	}
	return n;
}

ssize_t receive_record(int channel, void *ret, size_t size, int *ret_fd, unsigned *ret_n_fds)
{
	AUTO_FD fd = -1;
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(MAX_RECEIVED_FDS * sizeof(int))];
	} control;
	struct iovec body = { .iov_base = ret, .iov_len = size };
	struct msghdr msg = {
		.msg_iov = &body, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof control,
	};
	unsigned n_fds;
	ssize_t len;

	do
		len = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		return -errno;

	n_fds = collect_fds(&msg, &fd);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return -EMSGSIZE;
	*ret_n_fds = n_fds;
	*ret_fd = len > 0 ? take_fd(&fd) : -1;
	return len;
}
