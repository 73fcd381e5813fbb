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

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/confine.h"

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
static const int allowed_reading[] = {
	SCMP_SYS(getdents64), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
};

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

int sandbox_enter(const char *const *folders, bool *ret_readable, struct failure *why)
{
	bool has_landlock = false;
	int r = confine_check_descriptors("negotiator", why);

	if (r < 0)
		return r;
	r = confine_privileges(why);
	if (r == 0)
		r = confine_files(folders, &has_landlock, why);
	*ret_readable = has_landlock && folders;
	return r == 0 ? filter_calls(*ret_readable, why) : r;
}

int sandbox_check(const char *path)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1;
}
