/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/confine.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/log.h"

/* As the kernel defines it; the header of the build machine may know only the beginning. */
struct ruleset {
	uint64_t fs;
	uint64_t net;                   /* version 4 */
	uint64_t scoped;                /* version 6 */
};

#define FS_ACCESS_V1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define FS_ACCESS_REFER (UINT64_C(1) << 13)             /* version 2 */
#define FS_ACCESS_TRUNCATE (UINT64_C(1) << 14)          /* version 3 */
#define FS_ACCESS_IOCTL_DEV (UINT64_C(1) << 15)         /* version 5 */
#define NET_BIND_AND_CONNECT_TCP UINT64_C(3)            /* version 4 */
#define SCOPE_SIGNAL (UINT64_C(1) << 1)                 /* version 6 */

/* Everything the kernel can deny.  Connecting to a unix socket by its path is not in it. */
static size_t ruleset_for(long version, struct ruleset *ret)
{
	*ret = (struct ruleset) { .fs = FS_ACCESS_V1 };
	if (version >= 2)
		ret->fs |= FS_ACCESS_REFER;
	if (version >= 3)
		ret->fs |= FS_ACCESS_TRUNCATE;
	if (version >= 4)
		ret->net = NET_BIND_AND_CONNECT_TCP;
	if (version >= 5)
		ret->fs |= FS_ACCESS_IOCTL_DEV;
	if (version >= 6)
		ret->scoped = SCOPE_SIGNAL;
	return version >= 6 ? sizeof *ret : version >= 4 ? 2 * sizeof(uint64_t) :
	                                                   sizeof(uint64_t);
}

#define MAY_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define MAY_WRITE (MAY_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
                   LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | \
                   LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SOCK | \
                   FS_ACCESS_TRUNCATE | FS_ACCESS_IOCTL_DEV)
#define OF_FILES (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
                  FS_ACCESS_TRUNCATE | FS_ACCESS_IOCTL_DEV)

/* Lets a file, or what lies in and below a folder, be used so, if there is such a thing. */
static int allow_path(int rules, const struct ruleset *ruleset, const struct confine_path *path)
{
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = (path->may_write ? MAY_WRITE : MAY_READ) & ruleset->fs,
		.parent_fd = open(path->path, O_PATH | O_CLOEXEC),
	};
	AUTO_FD fd = beneath.parent_fd;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISDIR(st.st_mode))
		beneath.allowed_access &= OF_FILES;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0 ?
		-errno : 0;
}

/* A set of rules that lets nothing through; -ENOSYS, without a sentence, when there is none. */
static int make_rules(struct ruleset *ret_ruleset, struct failure *why)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	size_t size;
	int rules;

	if (version < 1) {
		log_debug("this kernel has no Landlock, going on without");
		return -ENOSYS;
	}
	size = ruleset_for(version, ret_ruleset);
	rules = (int) syscall(SYS_landlock_create_ruleset, ret_ruleset, size, 0);
	if (rules < 0)
		return fail(why, errno, "cannot prepare Landlock (version %ld)", version);
	return rules;
}

int confine_paths(const struct confine_path *paths, size_t n, bool *ret_is_on, struct failure *why)
{
	const struct confine_path proc = { .path = "/proc" };
	struct ruleset ruleset;
	AUTO_FD rules = make_rules(&ruleset, why);
	int r = 0;

	*ret_is_on = rules != -ENOSYS;
	if (rules < 0)
		return rules == -ENOSYS ? 0 : rules;
	for (size_t i = 0; i < n && r == 0; i++) {
		r = allow_path(rules, &ruleset, &paths[i]);
		if (r < 0)
			return fail(why, -r, "cannot keep %.300s %s", paths[i].path,
			            paths[i].may_write ? "writable" : "readable");
	}
	if (SANITIZED)                  /* the leak check reads it; see above */
		(void) allow_path(rules, &ruleset, &proc);
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return fail(why, errno, "cannot enter Landlock");
	return 0;
}

int confine_files(const char *const *folders, bool *ret_is_on, struct failure *why)
{
	struct confine_path paths[CONFINE_FOLDERS_MAX];
	size_t n = 0;

	for (; folders && *folders; folders++, n++) {
		assert(n < CONFINE_FOLDERS_MAX);
		paths[n] = (struct confine_path) { .path = *folders };
	}
	return confine_paths(paths, n, ret_is_on, why);
}

static int drop_capabilities(struct failure *why)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* The bounding set can be emptied only by who has CAP_SETPCAP; others have nothing
	 * that it could let through, with no new privileges. */
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		(void) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	(void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none) < 0)
		return fail(why, errno, "cannot drop capabilities");
	return 0;
}

/* What was inherited counts as well: a descriptor is a way around every rule above. */
static int check_descriptor(int fd, const char *who, struct failure *why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return 0;
	if (S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode))
		return fail_plain(why, EBADF, "descriptor %d is a %s, which the %s must not have",
		                  fd, S_ISBLK(st.st_mode) ? "block device" : "folder", who);
	return 0;
}

int confine_check_descriptors(const char *who, struct failure *why)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *entry;
	int r = 0;

	if (!fds)
		return fail(why, errno, "cannot look through the open descriptors");
	while (r == 0 && (entry = readdir(fds))) {
		int fd = atoi(entry->d_name);           /* "." and ".." are standard input */

		if (fd != dirfd(fds))
			r = check_descriptor(fd, who, why);
	}
	closedir(fds);
	return r;
}

int confine_privileges(struct failure *why)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(why, errno, "cannot give up privileges");
	return drop_capabilities(why);
}
