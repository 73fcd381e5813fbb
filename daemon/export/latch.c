/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* Of the process before us. */
static void read_reason(struct latch *latch)
{
	AUTO_FD fd = open(latch->path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, latch->reason, sizeof latch->reason - 1);

	latch->reason[len > 0 ? len : 0] = '\0';
	latch->reason[strcspn(latch->reason, "\n")] = '\0';
	if (!latch->reason[0])
		(void) snprintf(latch->reason, sizeof latch->reason, "a flush failed");
}

int latch_open(struct latch *latch, const char *state_dir, const char *identity,
               struct failure *why)
{
	struct stat st;

	*latch = (struct latch) { .lock = PTHREAD_MUTEX_INITIALIZER };
	if (mkdir(state_dir, 0700) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the state directory %s", state_dir);
	if (lstat(state_dir, &st) < 0 || access(state_dir, R_OK | W_OK | X_OK) < 0)
		return fail(why, errno, "cannot use the state directory %s", state_dir);
	if (!S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0))
		return fail_plain(why, EPERM, "the state directory %s belongs to somebody else",
		                  state_dir);
	if (asprintf(&latch->path, "%s/flush-failed-%s", state_dir, identity) < 0) {
		latch->path = NULL;
		return fail(why, ENOMEM, "cannot name the state file");
	}
	latch->set = access(latch->path, F_OK) == 0;
	if (!latch->set && errno != ENOENT)
		return fail(why, errno, "cannot look for %s", latch->path);
	if (latch->set)
		read_reason(latch);
	if (latch->set)
		log_event(EVENT_FLUSH_STILL_FAILED, NULL, "an earlier flush of this device failed: FLUSH "
		          "and FUA go on failing, since data that was acknowledged may be lost.  Check the "
		          "device, then clear the error (nbdctl clear-error), or stop the export and remove "
		          "%s", latch->path);
	return 0;
}

void latch_close(struct latch *latch)
{
	free_pointer(&latch->path);
}

/* Under the lock. */
static void note(const struct latch *latch)
{
	size_t len = strlen(latch->reason);
	AUTO_FD fd = open(latch->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, latch->reason, len) != (ssize_t) len)
		log_error("cannot note the failed flush in %s (%s): a restart will not know of it",
		          latch->path, strerror(errno));
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
	int r = 0;

	pthread_mutex_lock(&latch->lock);
	if (unlink(latch->path) < 0 && errno != ENOENT)
		r = fail(why, errno, "cannot remove %s", latch->path);
	else
		latch->set = false;
	pthread_mutex_unlock(&latch->lock);
	return r;
}
