/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox, from the outside in: descriptors, capabilities, Landlock, system calls.
 *
 * Each layer alone keeps the disk out of reach.  The one that is always there is seccomp:
 * the list below is all that we may ask of the kernel, everything else is EPERM.
 *
 * A build with AddressSanitizer is for finding mistakes, not for serving strangers: there
 * the leak check at the end must read /proc and trace its own threads, so opening to read,
 * without O_CLOEXEC, and a few more calls are allowed.
 */
#include "negotiator/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/log.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Calls without conditions. */
static const int allowed[] = {
	/* sockets and the event loop */
	SCMP_SYS(accept4), SCMP_SYS(connect), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
	SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(shutdown), SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
	SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(signalfd4),
	SCMP_SYS(poll), SCMP_SYS(ppoll),
	/* descriptors that we have */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fcntl),
	SCMP_SYS(fstat), SCMP_SYS(lseek),
	/* memory, apart from what mmap and mprotect are allowed below */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex),
	/* time, signals, who we are, the end */
	SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(getpid),
	SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
	SCMP_SYS(getegid), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall),
	SCMP_SYS(tgkill), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

/* Calls with one condition. */
static const struct conditional {
	int call;
	struct scmp_arg_cmp only;
} conditional[] = {
	/* To other processes of this machine; no new way to the network. */
	{ SCMP_SYS(socket), { 0, SCMP_CMP_EQ, AF_UNIX, 0 } },
	{ SCMP_SYS(mmap), { 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0 } },
	{ SCMP_SYS(mprotect), { 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0 } },
	/* This is how glibc spells fstat(). */
	{ SCMP_SYS(newfstatat), { 3, SCMP_CMP_EQ, AT_EMPTY_PATH, 0 } },
};

/* To read settings again, where Landlock leaves nothing else to be read. */
static const int allowed_reading[] = { SCMP_SYS(getdents64) };

#define NOT_TO_READ (O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | O_PATH)

static const struct conditional opening_to_read = {
	SCMP_SYS(openat), { 2, SCMP_CMP_MASKED_EQ, NOT_TO_READ, O_RDONLY },
};

/* For the leak check of AddressSanitizer; see above. */
static const int allowed_sanitized[] = {
	SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(wait4), SCMP_SYS(ptrace), SCMP_SYS(prctl),
	SCMP_SYS(getdents), SCMP_SYS(getdents64), SCMP_SYS(readlink), SCMP_SYS(getrlimit),
	SCMP_SYS(prlimit64), SCMP_SYS(setrlimit), SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(kill),
	SCMP_SYS(process_vm_readv), SCMP_SYS(dup), SCMP_SYS(pipe), SCMP_SYS(pipe2),
	SCMP_SYS(stat), SCMP_SYS(getppid), SCMP_SYS(arch_prctl), SCMP_SYS(mincore),
	SCMP_SYS(msync), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(uname),
	SCMP_SYS(ioctl),
};

static const struct conditional opening_sanitized[] = {
	{ SCMP_SYS(open), { 1, SCMP_CMP_EQ, O_RDONLY, 0 } },
	{ SCMP_SYS(open), { 1, SCMP_CMP_EQ, O_RDONLY | O_DIRECTORY, 0 } },
	{ SCMP_SYS(openat), { 2, SCMP_CMP_EQ, O_RDONLY, 0 } },
	{ SCMP_SYS(openat), { 2, SCMP_CMP_EQ, O_RDONLY | O_DIRECTORY, 0 } },
};

static int allow_reading(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(allowed_reading) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed_reading[i], 0);
	if (r == 0)
		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, opening_to_read.call, 1,
		                           &opening_to_read.only);
	return r;
}

static int allow_calls(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(allowed) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(conditional) && r == 0; i++)
		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, conditional[i].call, 1,
		                           &conditional[i].only);
	if (!SANITIZED)
		return r;

	for (size_t i = 0; i < ARRAY_LEN(allowed_sanitized) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed_sanitized[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(opening_sanitized) && r == 0; i++)
		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, opening_sanitized[i].call, 1,
		                           &opening_sanitized[i].only);
	return r;
}

static int filter_calls(bool may_read, struct failure *why)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!ctx)
		return fail(why, ENOMEM, "cannot prepare the system call filter");
	r = allow_calls(ctx);
	if (r == 0 && may_read)
		r = allow_reading(ctx);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? fail(why, -r, "cannot filter system calls") : 0;
}

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

/* Lets what lies in and below the folder be read, if there is such a folder. */
static int allow_beneath(int rules, const char *folder)
{
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		.parent_fd = open(folder, O_PATH | O_CLOEXEC | O_DIRECTORY),
	};
	AUTO_FD fd = beneath.parent_fd;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0 ?
		-errno : 0;
}

static int allow_folders(int rules, const char *const *folders, struct failure *why)
{
	for (; folders && *folders; folders++) {
		int r = allow_beneath(rules, *folders);

		if (r < 0)
			return fail(why, -r, "cannot keep %.300s readable", *folders);
	}
	return 0;
}

/* `ret_is_on` tells whether the kernel can. */
static int deny_files(const char *const *folders, bool *ret_is_on, struct failure *why)
{
	struct ruleset ruleset;
	AUTO_FD rules = -1;
	long version;
	size_t size;

	version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1) {
		log_debug("this kernel has no Landlock, going on without");
		*ret_is_on = false;
		return 0;
	}
	size = ruleset_for(version, &ruleset);
	rules = (int) syscall(SYS_landlock_create_ruleset, &ruleset, size, 0);
	if (rules < 0)
		return fail(why, errno, "cannot prepare Landlock (version %ld)", version);
	if (allow_folders(rules, folders, why) < 0)
		return -why->code;
	if (SANITIZED)                  /* the leak check reads it; see above */
		(void) allow_beneath(rules, "/proc");
	*ret_is_on = true;
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return fail(why, errno, "cannot enter Landlock (version %ld)", version);
	return 0;
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
static int check_descriptor(int fd, struct failure *why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return 0;
	if (S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode))
		return fail_plain(why, EBADF, "descriptor %d is a %s, which the negotiator must "
		                  "not have", fd, S_ISBLK(st.st_mode) ? "block device" : "folder");
	return 0;
}

static int check_descriptors(struct failure *why)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *entry;
	int r = 0;

	if (!fds)
		return fail(why, errno, "cannot look through the open descriptors");
	while (r == 0 && (entry = readdir(fds))) {
		int fd = atoi(entry->d_name);           /* "." and ".." are standard input */

		if (fd != dirfd(fds))
			r = check_descriptor(fd, why);
	}
	closedir(fds);
	return r;
}

int sandbox_enter(const char *const *folders, bool *ret_readable, struct failure *why)
{
	bool has_landlock = false;
	int r = check_descriptors(why);

	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(why, errno, "cannot give up privileges");
	r = drop_capabilities(why);
	if (r == 0)
		r = deny_files(folders, &has_landlock, why);
	*ret_readable = has_landlock && folders;
	return r == 0 ? filter_calls(*ret_readable, why) : r;
}

int sandbox_check(const char *path)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1;
}
