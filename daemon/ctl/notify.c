/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/notify.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"

#define MESSAGE_MAX 4096u

/* Room for the credentials and nothing else: descriptors that come along are dropped. */
union credentials {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(struct ucred))];
};

int notify_listen(const char *path, int *ret_fd, struct failure *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int yes = 1;
	AUTO_FD fd = -1;

	if (strlen(path) >= sizeof address.sun_path)
		return fail(why, ENAMETOOLONG, "cannot make the socket %s", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0)
		return fail(why, errno, "cannot make the socket %s", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* One of the message's lines is `line`. */
static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	while (text) {
		if (strncmp(text, line, len) == 0 && (text[len] == '\0' || text[len] == '\n'))
			return true;
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return false;
}

/* 0 when the kernel did not tell, which is no child of ours. */
static pid_t sender_of(struct msghdr *message)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(message);
	struct ucred who;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
	    c->cmsg_len != CMSG_LEN(sizeof who))
		return 0;
	memcpy(&who, CMSG_DATA(c), sizeof who);
	return who.pid;
}

bool notify_receive(int fd, pid_t *ret_sender)
{
	for (;;) {
		char text[MESSAGE_MAX + 1];
		union credentials control = { 0 };
		struct iovec body = { .iov_base = text, .iov_len = MESSAGE_MAX };
		struct msghdr message = {
			.msg_iov = &body, .msg_iovlen = 1,
			.msg_control = &control, .msg_controllen = sizeof control,
		};
		ssize_t len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
		pid_t sender;

		if (len < 0)
			return false;
		text[len] = '\0';
		sender = sender_of(&message);
		if (sender > 0 && has_line(text, "READY=1")) {
			*ret_sender = sender;
			return true;
		}
	}
}
