/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/programs.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/paths.h"

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* The folder of our own executable, without a slash at the end. */
static int own_folder(char *ret, size_t size, struct failure *why)
{
	ssize_t len = readlink("/proc/self/exe", ret, size - 1);
	char *slash;

	if (len < 0)
		return fail(why, errno, "cannot find our own program: /proc/self/exe");
	ret[len] = '\0';
	slash = strrchr(ret, '/');
	if (slash)
		*slash = '\0';
	return 0;
}

/* build/daemon/ctl/nbdctl has its siblings in build/daemon/export and the like: the folder
 * is called as the program without its "nbd-". */
static int beside(const char *own, const char *name, char **ret)
{
	AUTO_FREE char *same = NULL;
	AUTO_FREE char *built = NULL;

	if (asprintf(&same, "%s/%s", own, name) < 0) {
		same = NULL;
		return -ENOMEM;
	}
	if (asprintf(&built, "%s/../%s/%s", own, name + strlen("nbd-"), name) < 0) {
		built = NULL;
		return -ENOMEM;
	}
	if (is_program(same))
		*ret = take_ptr(same);
	else if (is_program(built))
		*ret = take_ptr(built);
	return 0;
}

/* `name` in `folder` alone. */
static int inside(const char *folder, const char *name, char **ret, struct failure *why)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot look for %s", name);
	}
	if (!is_program(path))
		return fail_plain(why, ENOENT, "there is no program %s", path);
	*ret = take_ptr(path);
	return 0;
}

int program_find(const char *name, char **ret, struct failure *why)
{
	const char *chosen = getenv("NBD_EXPORT_PROGRAMS");
	char own[PATH_MAX];
	char *found = NULL;
	int r;

	if (chosen)
		return inside(chosen, name, ret, why);

	r = own_folder(own, sizeof own, why);
	if (r < 0)
		return r;
	if (beside(own, name, &found) < 0)
		return fail(why, ENOMEM, "cannot look for %s", name);
	if (found) {
		*ret = found;
		return 0;
	}
	if (inside(PROGRAMS_DIR, name, ret, &(struct failure) { 0 }) == 0)
		return 0;
	return fail_plain(why, ENOENT, "the program %s is neither beside nbdctl (%s) nor in %s",
	                  name, own, PROGRAMS_DIR);
}
