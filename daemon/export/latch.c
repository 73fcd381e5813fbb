/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/paths.h"

/* Of root's, the one above it too. */
static int make_folder(const char *folder, struct failure *why)
{
	if (strcmp(folder, FLUSH_FAILED_DIR) == 0)
		(void) mkdir(RUN_DIR, 0755);
	if (mkdir(folder, 0750) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the folder %s", folder);
	return 0;
}

/* Of the units' folder root is not the owner, and may use it all the same. */
static int check_folder(const char *folder, struct failure *why)
{
	struct stat st;

	if (lstat(folder, &st) < 0 || access(folder, R_OK | W_OK | X_OK) < 0)
		return fail(why, errno, "cannot use the folder %s", folder);
	if (!S_ISDIR(st.st_mode) || (geteuid() != 0 && st.st_uid != geteuid() && st.st_uid != 0))
		return fail_plain(why, EPERM, "the folder %s belongs to somebody else", folder);
	return 0;
}

/* Whoever owns the folder shall be able to clear it. */
static int write_reason(const struct latch *latch)
{
	AUTO_FREE char *folder = strndup(latch->path, (size_t) (strrchr(latch->path, '/') - latch->path));
	AUTO_FD fd = open(latch->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
	ssize_t len = (ssize_t) strlen(latch->reason);
	struct stat st;

	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;    /* another export of this device was first */
	if (fchmod(fd, 0640) == 0 && folder && stat(folder, &st) == 0)
		(void) !fchown(fd, st.st_uid, st.st_gid);
	return write(fd, latch->reason, (size_t) len) == len ? 0 : -EIO;
}

/* Under the lock. */
static void note(const struct latch *latch)
{
	int r = write_reason(latch);

	if (r < 0)
		log_error("cannot note the failed flush in %s (%s): a restart will not know of it",
		          latch->path, strerror(-r));
}

/* What an earlier process has noted, under this label or another. */
static int look_for_note(struct latch *latch, struct failure *why)
{
	char path[PATH_MAX];
	int r = latch_file_find(latch->all, latch->identity, path);

	if (r == 0)
		r = latch_file_read(path, latch->reason);
	if (r < 0 && r != -ENOENT)
		return fail(why, -r, "cannot look for %s", path);
	latch->set = r == 0;
	if (!latch->set)
		return 0;
	log_event(EVENT_FLUSH_STILL_FAILED, NULL, "an earlier flush of this device failed: FLUSH "
	          "and FUA go on failing, since data that was acknowledged may be lost.  Check the "
	          "device, then clear the error (nbdctl clear-error), or stop the export and remove "
	          "%s", path);
	if (strcmp(path, latch->path) != 0)
		note(latch);
	return 0;
}

int latch_open(struct latch *latch, const char *label, const char *identity, struct failure *why)
{
	struct latch_place place;
	char path[PATH_MAX];
	int r;

	*latch = (struct latch) { .lock = PTHREAD_MUTEX_INITIALIZER };
	(void) snprintf(latch->identity, sizeof latch->identity, "%s", identity);
	latch_place_find(label, &place);
	r = make_folder(place.own, why);
	if (r == 0)
		r = check_folder(place.own, why);
	if (r < 0)
		return r;
	latch->all = strdup(place.all);
	latch->path = latch_file_path(place.own, identity, path) < 0 ? NULL : strdup(path);
	if (!latch->all || !latch->path)
		return fail(why, ENOMEM, "cannot name the memory of failed flushes");
	return look_for_note(latch, why);
}

void latch_close(struct latch *latch)
{
	free_pointer(&latch->all);
	free_pointer(&latch->path);
}

void latch_set(struct latch *latch, const char *reason)
{
	bool first;

	pthread_mutex_lock(&latch->lock);
	first = !latch->set;
	if (first) {
		(void) snprintf(latch->reason, sizeof latch->reason, "%.*s at %jd",
		                (int) sizeof latch->reason - 40, reason, (intmax_t) time(NULL));
		latch->set = true;
		note(latch);
	}
	pthread_mutex_unlock(&latch->lock);
	if (first)
		log_event(EVENT_FLUSH_FAILED, NULL, "%s: from now on FLUSH and FUA fail, since data that "
		          "was acknowledged may be lost", reason);
}

void latch_reason(struct latch *latch, char ret[static LATCH_REASON_SIZE])
{
	pthread_mutex_lock(&latch->lock);
	(void) snprintf(ret, LATCH_REASON_SIZE, "%s", latch->set ? latch->reason : "");
	pthread_mutex_unlock(&latch->lock);
}

int latch_clear(struct latch *latch, struct failure *why)
{
	struct failure left = { 0 };
	int r = 0;

	pthread_mutex_lock(&latch->lock);
	if (unlink(latch->path) < 0 && errno != ENOENT)
		r = fail(why, errno, "cannot remove %s", latch->path);
	else
		latch->set = false;
	pthread_mutex_unlock(&latch->lock);
	if (r == 0 && latch_file_remove(latch->all, latch->identity, &left) < 0)
		log_warning("%s; it counts again at the next start", left.text);
	return r;
}
