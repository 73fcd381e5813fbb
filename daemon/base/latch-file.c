/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/latch-file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/paths.h"
#include "base/text.h"

static bool is_usable(const char *folder, int mode)
{
	return access(folder, mode) == 0;
}

/* systemd has made the folder of a unit. */
void latch_place_find(const char *label, struct latch_place *ret)
{
	const char *given = getenv("NBD_EXPORT_FLUSH_FAILED"), *user = getenv("XDG_RUNTIME_DIR");
	char of_unit[PATH_MAX];
	bool theirs;

	(void) snprintf(of_unit, sizeof of_unit, FLUSH_FAILED_DIR "/%s", label ? label : "");
	theirs = is_usable(of_unit, label ? R_OK | W_OK | X_OK : R_OK | X_OK);
	if (given && *given)
		(void) snprintf(ret->all, sizeof ret->all, "%s", given);
	else if (geteuid() == 0 || theirs)
		(void) snprintf(ret->all, sizeof ret->all, "%s", FLUSH_FAILED_DIR);
	else if (user && *user)
		(void) snprintf(ret->all, sizeof ret->all, "%s/nbd-export", user);
	else
		(void) snprintf(ret->all, sizeof ret->all, "/tmp/nbd-export-%u", geteuid());

	if (!label || snprintf(ret->own, sizeof ret->own, "%s/%s", ret->all, label) >= PATH_MAX ||
	    !is_usable(ret->own, R_OK | W_OK | X_OK))
		memcpy(ret->own, ret->all, sizeof ret->own);
}

int latch_file_path(const char *folder, const char *identity, char ret[static PATH_MAX])
{
	return snprintf(ret, PATH_MAX, "%s/flush-failed-%s", folder, identity) < PATH_MAX ?
		0 : -ENAMETOOLONG;
}

/* 0, or why there is nothing. */
static int look_for(const char *folder, const char *identity, char ret[static PATH_MAX])
{
	int r = latch_file_path(folder, identity, ret);
	struct stat st;

	if (r < 0)
		return r;
	return lstat(ret, &st) < 0 ? -errno : 0;
}

/* What one may not look into is not ours. */
static int look_beneath(const char *all, const char *identity, char ret[static PATH_MAX])
{
	const struct dirent *entry;
	char folder[PATH_MAX];
	int r = -ENOENT;
	DIR *dir = opendir(all);

	if (!dir)
		return errno == EACCES ? -ENOENT : -errno;
	while (r < 0 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' &&
		    snprintf(folder, sizeof folder, "%s/%s", all, entry->d_name) < PATH_MAX)
			r = look_for(folder, identity, ret);
	(void) closedir(dir);
	return r < 0 ? -ENOENT : 0;
}

int latch_file_find(const char *all, const char *identity, char ret[static PATH_MAX])
{
	int r = look_for(all, identity, ret);

	return r == -ENOENT ? look_beneath(all, identity, ret) : r;
}

int latch_file_remove(const char *all, const char *identity, struct failure *why)
{
	char path[PATH_MAX];
	int r;

	while ((r = latch_file_find(all, identity, path)) == 0)
		if (unlink(path) < 0 && errno != ENOENT)
			return fail(why, errno, "cannot remove %s", path);
	return r == -ENOENT ? 0 : fail(why, -r, "cannot look for %s", path);
}

/* Its first line, or nothing. */
static size_t read_line(const char *path, char *ret, size_t size)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	ssize_t len;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	len = read(fd, ret, size - 1);
	ret[len > 0 ? len : 0] = '\0';
	return strcspn(ret, "\n");
}

int latch_file_read(const char *path, char ret[static LATCH_REASON_SIZE])
{
	char line[LATCH_REASON_SIZE];
	struct stat st;
	size_t len;

	if (lstat(path, &st) < 0)
		return -errno;
	len = read_line(path, line, sizeof line);
	if (len)
		printable((struct span) { (const uint8_t *) line, len }, LATCH_REASON_SIZE - 4, ret,
		          LATCH_REASON_SIZE);
	else
		(void) snprintf(ret, LATCH_REASON_SIZE, "a flush failed");
	return 0;
}
