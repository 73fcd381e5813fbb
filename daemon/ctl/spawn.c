/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fork, arrange, exec.  What fails between fork and exec travels to the parent through
 * a pipe that exec closes, so a program that cannot be executed is our own
 * failure with a sentence, not a child with a strange exit code.
 */
#include "ctl/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"

#define FIRST_PASSED_FD 3               /* SD_LISTEN_FDS_START, sd_listen_fds(3) */
#define SETUP_FAILED 127                /* nobody sees it: the pipe has told */

/* What the child tells when it could not become the program. */
struct setup_fault {
	int code;                       /* errno */
	char step[60];                  /* what it was doing */
};

static _Noreturn void give_up(int report, const char *step)
{
	struct setup_fault fault = { .code = errno };

	(void) snprintf(fault.step, sizeof fault.step, "%s", step);
	if (write(report, &fault, sizeof fault) < 0)
		_exit(SETUP_FAILED);    /* nothing more can be said */
	_exit(SETUP_FAILED);
}

/* The child must not outlive us, and Ctrl-C in our terminal must not reach it. */
static void tie_to_parent(int report, pid_t parent)
{
	if (setpgid(0, 0) < 0)
		give_up(report, "making a process group");
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		give_up(report, "asking for a signal at the parent's end");
	if (getppid() != parent)        /* it died before prctl() */
		_exit(SETUP_FAILED);
}

/* Writing to a log that is gone, or to a terminal from the background, must not end or stop
 * a child, so those two signals are ignored, as service managers do. */
static void reset_signals(int report)
{
	struct sigaction standard = { .sa_handler = SIG_DFL };
	struct sigaction ignored = { .sa_handler = SIG_IGN };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		(void) sigaction(number, &standard, NULL);      /* not possible for a few */
	(void) sigaction(SIGPIPE, &ignored, NULL);
	(void) sigaction(SIGTTOU, &ignored, NULL);
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		give_up(report, "unblocking signals");
}

/* Input is empty; standard output is ours alone (it carries the URIs). */
static void set_standard_streams(int report)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		give_up(report, "opening /dev/null");
	if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		give_up(report, "joining standard output and standard error");
}

/*
 * Moves the sockets to 3, 4, ... and closes all that is beyond them.  They first move up, so
 * that none is overwritten by another.  Returns the report's new number, right behind them.
 */
static int place_fds(int report, const struct spawn_plan *plan)
{
	int behind = FIRST_PASSED_FD + (int) plan->n_fds;
	int high_report = fcntl(report, F_DUPFD_CLOEXEC, behind + 1);
	int *high = calloc(plan->n_fds + 1, sizeof *high);      /* exec frees it */

	if (high_report < 0 || !high)
		give_up(report, "duplicating descriptors");
	for (size_t i = 0; i < plan->n_fds; i++) {
		high[i] = fcntl(plan->fds[i], F_DUPFD_CLOEXEC, behind + 1);
		if (high[i] < 0)
			give_up(high_report, "duplicating descriptors");
	}
	for (size_t i = 0; i < plan->n_fds; i++)
		if (dup2(high[i], FIRST_PASSED_FD + (int) i) < 0)
			give_up(high_report, "placing descriptors");
	if (dup3(high_report, behind, O_CLOEXEC) < 0)
		give_up(high_report, "placing descriptors");
	if (close_range((unsigned) behind + 1, ~0u, 0) < 0)
		give_up(behind, "closing other descriptors");
	return behind;
}

static void set_number(int report, const char *variable, long number)
{
	char text[24];

	(void) snprintf(text, sizeof text, "%ld", number);
	if (setenv(variable, text, 1) < 0)
		give_up(report, "setting the environment");
}

/* What systemd or a person gave to all of us has a folder for each. */
static void set_state_folder(int report, const char *instance)
{
	const char *ours = getenv("STATE_DIRECTORY");
	char path[PATH_MAX];

	if (!ours || !instance)
		return;
	(void) snprintf(path, sizeof path, "%.*s/%s", (int) strcspn(ours, ":"), ours, instance);
	if (setenv("STATE_DIRECTORY", path, 1) < 0)
		give_up(report, "setting the environment");
}

static void set_environment(int report, const struct spawn_plan *plan)
{
	set_number(report, "LISTEN_FDS", (long) plan->n_fds);
	set_number(report, "LISTEN_PID", (long) getpid());
	if (setenv("LISTEN_FDNAMES", plan->fd_names, 1) < 0 ||
	    setenv("NOTIFY_SOCKET", plan->notify_socket, 1) < 0)
		give_up(report, "setting the environment");
	set_state_folder(report, plan->instance);
	(void) unsetenv("WATCHDOG_USEC");       /* those were meant for us */
	(void) unsetenv("WATCHDOG_PID");
}

static _Noreturn void become(int report, pid_t parent, const struct spawn_plan *plan)
{
	tie_to_parent(report, parent);
	reset_signals(report);
	set_standard_streams(report);
	report = place_fds(report, plan);
	set_environment(report, plan);
	(void) execv(plan->program, plan->argv);
	give_up(report, "executing it");
}

/* Waits until exec has closed the pipe; whether it carried a fault first. */
static bool read_fault(int report, struct setup_fault *ret)
{
	ssize_t len;

	do
		len = read(report, ret, sizeof *ret);
	while (len < 0 && errno == EINTR);
	return len == (ssize_t) sizeof *ret;
}

int spawn(const struct spawn_plan *plan, pid_t *ret_pid, struct failure *why)
{
	struct setup_fault fault;
	pid_t parent = getpid();
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(why, errno, "cannot start %s: cannot make a pipe", plan->program);
	AUTO_FD report = ends[0];
	AUTO_FD report_of_child = ends[1];

	pid = fork();
	if (pid < 0)
		return fail(why, errno, "cannot start %s: cannot fork", plan->program);
	if (pid == 0)
		become(report_of_child, parent, plan);

	close_fd(&report_of_child);
	if (read_fault(report, &fault)) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return fail(why, fault.code, "cannot start %s: %s", plan->program, fault.step);
	}
	*ret_pid = pid;
	return 0;
}
