/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For LD_PRELOAD: while the file NBD_EXPORT_NO_MEMORY is there, threads named "ring" get no memory:
 * from malloc(3), for more than a page, and from epoll_ctl(2) for what is to be watched.  That it
 * happened shows by a file of the same name and ".met".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PAGE 4096u

static bool is_out(void)
{
	const char *path = getenv("NBD_EXPORT_NO_MEMORY");
	char name[16] = "", met[256];
	int fd;

	if (prctl(PR_GET_NAME, name) < 0 || strcmp(name, "ring") != 0)
		return false;
	if (!path || access(path, F_OK) < 0)
		return false;
	(void) snprintf(met, sizeof met, "%s.met", path);
	fd = open(met, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void) close(fd);
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	static void *(*next)(size_t);

	if (!next)
		*(void **) &next = dlsym(RTLD_NEXT, "malloc");
	return size > PAGE && is_out() ? NULL : next(size);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	static int (*next)(int, int, int, struct epoll_event *);

	if (!next)
		*(void **) &next = dlsym(RTLD_NEXT, "epoll_ctl");
	return op != EPOLL_CTL_DEL && is_out() ? -1 : next(epoll, op, fd, event);
}
