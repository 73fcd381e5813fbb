/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/whole-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"

#define SIZE_LIMIT (16 << 20)           /* bytes */

int whole_file_path(const char *folder, const char *name, char *ret, struct failure *why)
{
	if (snprintf(ret, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return fail_plain(why, ENAMETOOLONG, "the path is too long: %.200s/%.100s", folder,
		                  name);
	return 0;
}

int whole_file_begin(const char *path, char *ret, struct failure *why)
{
	if (snprintf(ret, PATH_MAX, "%s.new", path) >= PATH_MAX)
		return fail_plain(why, ENAMETOOLONG, "the path is too long: %.300s", path);
	if (unlink(ret) < 0 && errno != ENOENT)
		return fail(why, errno, "cannot replace %.300s", ret);
	return 0;
}

int whole_file_end(const char *unfinished, const char *path, mode_t mode, struct failure *why)
{
	AUTO_FD fd = open(unfinished, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(unfinished, path) < 0)
		return fail(why, errno, "cannot make %.300s", path);
	return 0;
}

int whole_file_write(const char *path, const void *at, size_t len, mode_t mode,
                     struct failure *why)
{
	char unfinished[PATH_MAX];
	AUTO_FD fd = -1;
	ssize_t n;
	int r = whole_file_begin(path, unfinished, why);

	if (r < 0)
		return r;
	fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	n = fd < 0 ? -1 : write(fd, at, len);
	if (n != (ssize_t) len) {
		r = fail(why, n < 0 ? errno : ENOSPC, "cannot write %.300s", unfinished);
		(void) unlink(unfinished);
		return r;
	}
	return whole_file_end(unfinished, path, mode, why);
}

int whole_file_read(const char *path, char **ret, size_t *ret_len, struct failure *why)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	AUTO_FREE char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(why, errno, "cannot read %.300s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > SIZE_LIMIT)
		return fail_plain(why, EFBIG, "%.300s is no file of a size that can be", path);
	text = malloc((size_t) st.st_size + 1);
	n = text ? read(fd, text, (size_t) st.st_size) : -1;
	if (n != st.st_size)
		return fail(why, n < 0 ? errno : EIO, "cannot read %.300s", path);
	text[n] = '\0';
	*ret = take_ptr(text);
	*ret_len = (size_t) n;
	return 0;
}
