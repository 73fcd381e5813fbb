/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

int latch_open(struct latch *latch, const char *state_dir, const char *identity,
               struct failure *why)
{
	struct stat st;

	*latch = (struct latch) { 0 };
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
		log_warning("an earlier flush of this device failed: FLUSH and FUA go on failing, since "
		            "data that was acknowledged may be lost.  Check the device, then stop the "
		            "export and remove %s", latch->path);
	return 0;
}

void latch_close(struct latch *latch)
{
	free_pointer(&latch->path);
}

void latch_set(struct latch *latch, const char *reason)
{
	AUTO_FD fd = -1;
	char text[256];
	int len;

	if (atomic_exchange(&latch->set, true))
		return;
	log_error("%s: from now on FLUSH and FUA fail, since data that was acknowledged may be lost",
	          reason);

	len = snprintf(text, sizeof text, "%s at %jd\n", reason, (intmax_t) time(NULL));
	fd = open(latch->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, (size_t) len) != len)
		log_error("cannot note the failed flush in %s (%s): a restart will not know of it",
		          latch->path, strerror(errno));
}
