/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/folder-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/log.h"

/* The folder and the one above it. */
static int make_folder(const char *folder, struct failure *why)
{
	AUTO_FREE char *parent = strdup(folder);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (slash && slash != parent) {
		*slash = '\0';
		(void) mkdir(parent, 0755);     /* the next one tells */
	}
	if (mkdir(folder, 0755) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the folder %.300s", folder);
	return 0;
}

static int wait_for_lock(int fd, const char *folder, struct failure *why)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		log_notice("waiting for another nbdctl that changes %s", folder);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return fail(why, errno, "cannot lock %.300s", folder);
	return 0;
}

int folder_lock(const char *folder, int *ret_fd, struct failure *why)
{
	AUTO_FD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0 && errno == ENOENT) {
		r = make_folder(folder, why);
		if (r < 0)
			return r;
		fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0)
		return fail(why, errno, "cannot open the folder %.300s", folder);
	r = wait_for_lock(fd, folder, why);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}
