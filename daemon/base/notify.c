/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define TEXT_MAX 512u

/* A path, or a name that begins with "@"; other kinds are for virtual machines. */
static int send_to(const char *where, const char *text)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	AUTO_FD fd = -1;
	size_t len = strlen(where);

	if (len < 2 || len >= sizeof at.sun_path || (where[0] != '/' && where[0] != '@'))
		return -EINVAL;
	memcpy(at.sun_path, where, len);
	if (where[0] == '@')
		at.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *) &at,
	                     (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		return -errno;
	return 0;
}

int notify_without_waiting(const char *fmt, ...)
{
	const char *where = getenv("NOTIFY_SOCKET");
	char text[TEXT_MAX];
	va_list args;

	if (!where)
		return 0;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	return send_to(where, text);
}
