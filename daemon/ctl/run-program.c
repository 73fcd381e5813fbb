/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/run-program.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"

static _Noreturn void become(const char *const *argv, bool (*prepare)(void), int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(report, STDOUT_FILENO) < 0 ||
	    dup2(report, STDERR_FILENO) < 0 || (prepare && !prepare()))
		_exit(RUN_CANNOT);
	(void) unsetenv("JOURNAL_STREAM");      /* what it says is for us */
	(void) execvp(argv[0], (char *const *) argv);
	_exit(RUN_CANNOT);
}

/* All that it says, the end of it where it says too much. */
static void read_text(int fd, char *ret, size_t size)
{
	size_t len = 0;

	for (;;) {
		ssize_t n;

		if (len == size - 1) {
			memmove(ret, ret + size / 2, len - size / 2);
			len -= size / 2;
		}
		n = read(fd, ret + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t) n;
	}
	ret[len] = '\0';
}

int run_program(const char *const *argv, bool (*prepare)(void), char *ret_text, size_t size,
                struct failure *why)
{
	int ends[2];
	int status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(why, errno, "cannot run %s: cannot make a pipe", argv[0]);
	AUTO_FD report = ends[0];
	AUTO_FD report_of_child = ends[1];

	pid = fork();
	if (pid < 0)
		return fail(why, errno, "cannot run %s: cannot fork", argv[0]);
	if (pid == 0)
		become(argv, prepare, report_of_child);
	close_fd(&report_of_child);
	read_text(report, ret_text, size);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return fail(why, errno, "cannot run %s", argv[0]);
	if (WIFSIGNALED(status))
		return fail_plain(why, EIO, "%s was killed by SIG%s", argv[0],
		                  sigabbrev_np(WTERMSIG(status)));
	return WEXITSTATUS(status);
}

const char *run_last_line(char *text)
{
	size_t len = strlen(text);
	char *line;

	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	line = strrchr(text, '\n');
	return line ? line + 1 : text;
}
