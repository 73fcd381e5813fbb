/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/folder-lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/log.h"

#define PATIENCE 120u                   /* seconds */
#define TRIES_PER_SECOND 50u

/* The folder and the one above it. */
static int make_folder(const char *folder, struct failure *why)
{
	AUTO_FREE char *parent = strdup(folder);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (access(folder, F_OK) == 0)
		return 0;
	if (slash && slash != parent) {
		*slash = '\0';
		(void) mkdir(parent, 0755);     /* the next one tells */
	}
	if (mkdir(folder, 0755) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the folder %.300s", folder);
	return 0;
}

static unsigned patience(void)
{
	const char *given = getenv("NBD_EXPORT_LOCK_PATIENCE");

	return given ? (unsigned) strtoul(given, NULL, 10) : PATIENCE;
}

/* There is no lock call with a time limit. */
static int wait_for_lock(int fd, const char *path, const char *folder, struct failure *why)
{
	static const struct timespec pause = { .tv_nsec = 1000000000 / TRIES_PER_SECOND };
	unsigned seconds = patience();

	for (unsigned n = 0; n <= seconds * TRIES_PER_SECOND; n++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(why, errno, "cannot lock %.300s", path);
		if (n == 0)
			log_notice("waiting for another nbdctl that changes %s", folder);
		(void) nanosleep(&pause, NULL);
	}
	return fail_plain(why, EBUSY, "another nbdctl keeps changing %.200s, for more than %u s "
	                  "(which one: fuser -v %.200s)", folder, seconds, path);
}

static bool is_unfinished(const char *name)
{
	size_t len = strlen(name), ending = strlen(EXPORT_FILE_UNFINISHED);

	return name[0] == '.' && len > ending &&
	       strcmp(name + len - ending, EXPORT_FILE_UNFINISHED) == 0;
}

/* Nobody is writing now. */
static void remove_unfinished(const char *folder)
{
	DIR *dir = opendir(folder);

	if (!dir)
		return;
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (is_unfinished(entry->d_name))
			(void) unlinkat(dirfd(dir), entry->d_name, 0);
	(void) closedir(dir);
}

static char *name_lock(const struct places *p)
{
	char *path;

	if (asprintf(&path, "%s/%s", p->of_units ? p->runtime : p->exports,
	             p->of_units ? "nbdctl.lock" : ".lock") < 0)
		return NULL;
	return path;
}

static int lock(const char *path, const char *folder, int *ret_fd, struct failure *why)
{
	AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0 && errno == EACCES)
		return fail_plain(why, EACCES, "cannot open %.300s: Permission denied (to change "
		                  "exports, be root)", path);
	if (fd < 0)
		return fail(why, errno, "cannot open %.300s", path);
	r = wait_for_lock(fd, path, folder, why);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

int folder_lock_other(const char *folder, int *ret_fd, struct failure *why)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/.lock", folder) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot lock %.300s", folder);
	}
	return lock(path, folder, ret_fd, why);
}

int folder_lock(const struct places *p, int *ret_fd, struct failure *why)
{
	AUTO_FREE char *path = name_lock(p);
	int r = make_folder(p->exports, why);

	if (r == 0 && p->of_units)
		r = make_folder(p->runtime, why);
	if (r < 0)
		return r;
	if (!path)
		return fail(why, ENOMEM, "cannot lock %.300s", p->exports);
	r = lock(path, p->exports, ret_fd, why);
	if (r == 0)
		remove_unfinished(p->exports);
	return r;
}
