/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "generator/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/paths.h"

#define DROP_IN "50-device.conf"

/* The folder UNIT.d or UNIT.wants, made if need be.  Its descriptor, which the caller closes. */
static int open_folder(int dir, const char *unit, const char *suffix, struct failure *why)
{
	AUTO_FREE char *name = NULL;
	int fd;

	if (asprintf(&name, "%s%s", unit, suffix) < 0) {
		name = NULL;
		return fail(why, ENOMEM, "cannot make a folder");
	}
	if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the folder %s", name);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? fail(why, errno, "cannot open the folder %s", name) : fd;
}

/* A file system that is full may say so only at the end. */
static int write_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			left -= (size_t) n;
		}
	}
	return 0;
}

int output_drop_in(int dir, const char *unit, const char *text, struct failure *why)
{
	AUTO_FD folder = open_folder(dir, unit, ".d", why);
	AUTO_FD file = -1;
	int r;

	if (folder < 0)
		return folder;
	file = openat(folder, DROP_IN, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	r = file < 0 ? -errno : write_all(file, text);
	return r < 0 ? fail(why, -r, "cannot write %s.d/%s", unit, DROP_IN) : 0;
}

int output_want(int dir, const char *wisher, const char *unit, const char *template,
                struct failure *why)
{
	AUTO_FD folder = open_folder(dir, wisher, ".wants", why);
	AUTO_FREE char *target = NULL;

	if (folder < 0)
		return folder;
	if (asprintf(&target, "%s/%s", UNIT_DIR, template) < 0) {
		target = NULL;
		return fail(why, ENOMEM, "cannot make a link");
	}
	if (symlinkat(target, folder, unit) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the link %s.wants/%s", wisher, unit);
	return 0;
}
