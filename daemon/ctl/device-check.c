/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/device-check.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/attr.h"
#include "ctl/programs.h"

#define DEV "/dev/"
#define SERVICE_USER "nbd-export"
#define DISK_GROUP "disk"
#define TEXT_SIZE 2048u
#define CANNOT_RUN 127

/* The private folder with the one file. */
struct trial {
	char folder[64];
	char *file;
};

static int make_folder(struct trial *t, struct failure *why)
{
	static const char *const parents[] = { "/run", "/tmp" };

	for (size_t i = 0; i < ARRAY_LEN(parents); i++) {
		(void) snprintf(t->folder, sizeof t->folder, "%s/nbdctl-check-XXXXXX", parents[i]);
		if (mkdtemp(t->folder))
			return 0;
	}
	t->folder[0] = '\0';
	return fail(why, errno, "cannot make a private folder in /run or /tmp");
}

/* The program, as another user, must find the file in it. */
static int make_trial(const struct export_settings *s, struct trial *t, struct failure *why)
{
	int r = make_folder(t, why);

	if (r < 0)
		return r;
	if (chmod(t->folder, 0711) < 0)
		return fail(why, errno, "cannot open up %s", t->folder);
	r = export_settings_write(t->folder, s, why);
	if (r == 0 && asprintf(&t->file, "%s/%s" EXPORT_FILE_SUFFIX, t->folder, s->label) < 0) {
		t->file = NULL;
		r = fail(why, ENOMEM, "cannot check %s", s->device);
	}
	return r;
}

static void remove_trial(struct trial *t)
{
	if (t->file)
		(void) unlink(t->file);
	if (t->folder[0])
		(void) rmdir(t->folder);
	free(t->file);
}

/* In the child.  Systems without that user check as who we are. */
static bool become_service(void)
{
	const struct passwd *user = getpwnam(SERVICE_USER);
	const struct group *disk = getgrnam(DISK_GROUP);
	gid_t groups[2];
	size_t n = 0;

	if (geteuid() != 0 || !user)
		return true;
	groups[n++] = user->pw_gid;
	if (disk)
		groups[n++] = disk->gr_gid;
	return setgroups(n, groups) == 0 &&
	       setresgid(user->pw_gid, user->pw_gid, user->pw_gid) == 0 &&
	       setresuid(user->pw_uid, user->pw_uid, user->pw_uid) == 0;
}

static _Noreturn void become(const char *program, const struct export_settings *s,
                             const struct trial *t, bool as_service, int report)
{
	char exports[96];
	const char *argv[] = { program, exports, "--check", "--", s->label, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void) snprintf(exports, sizeof exports, "--exports=%s", t->folder);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(report, STDOUT_FILENO) < 0 ||
	    dup2(report, STDERR_FILENO) < 0 || (as_service && !become_service()))
		_exit(CANNOT_RUN);
	(void) unsetenv("JOURNAL_STREAM");      /* what it says is for us */
	(void) execv(program, (char *const *) argv);
	_exit(CANNOT_RUN);
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

/* The last line that is not empty, without "nbd-export[web1]: error: " before it. */
static const char *sentence_of(char *text, const char *label)
{
	static const char *const prefixes[] = { "nbd-export", "[", "", "]", ": ", "error: " };
	size_t len = strlen(text);
	char *line;

	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
		const char *prefix = *prefixes[i] ? prefixes[i] : label;

		if (strncmp(line, prefix, strlen(prefix)) == 0)
			line += strlen(prefix);
	}
	return line;
}

static int judge(int status, char *text, const struct export_settings *s, bool as_service,
                 struct failure *why)
{
	const char *sentence = sentence_of(text, s->label);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return fail_plain(why, EIO, "cannot check %.300s: nbd-export was killed by SIG%s",
		                  s->device, sigabbrev_np(WTERMSIG(status)));
	if (WEXITSTATUS(status) == CANNOT_RUN && !*sentence)
		return fail_plain(why, EIO, "cannot check %.300s: nbd-export cannot be executed",
		                  s->device);
	if (as_service && strstr(sentence, strerror(EACCES)))
		return fail_plain(why, EACCES, "%s (exports run as the user " SERVICE_USER ")",
		                  sentence);
	return fail_plain(why, EBUSY, "%s", *sentence ? sentence : "the device cannot be served");
}

static int run(const char *program, const struct export_settings *s, const struct trial *t,
               bool as_service, struct failure *why)
{
	char text[TEXT_SIZE];
	int ends[2];
	int status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(why, errno, "cannot check %.300s: cannot make a pipe", s->device);
	AUTO_FD report = ends[0];
	AUTO_FD report_of_child = ends[1];

	pid = fork();
	if (pid < 0)
		return fail(why, errno, "cannot check %.300s: cannot fork", s->device);
	if (pid == 0)
		become(program, s, t, as_service, report_of_child);
	close_fd(&report_of_child);
	read_text(report, text, sizeof text);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return fail(why, errno, "cannot check %.300s", s->device);
	return judge(status, text, s, as_service, why);
}

int device_check(const struct export_settings *s, bool as_service, struct failure *why)
{
	struct trial trial = { .file = NULL };
	AUTO_FREE char *program = NULL;
	int r = program_find("nbd-export", &program, why);

	if (r == 0)
		r = make_trial(s, &trial, why);
	if (r == 0)
		r = run(program, s, &trial, as_service, why);
	remove_trial(&trial);
	return r;
}

/* ": use /dev/vg0/web1", if that is known.  For the end of a sentence. */
static void name_instead(const char *path, bool beneath_dev, char *ret, size_t size)
{
	AUTO_FREE char *whole = realpath(path, NULL);

	*ret = '\0';
	if (whole && (strncmp(whole, DEV, strlen(DEV)) == 0) == beneath_dev)
		(void) snprintf(ret, size, ": use %.300s", whole);
}

int device_path_check(const char *device, struct failure *why)
{
	bool beneath_dev = strncmp(device, DEV, strlen(DEV)) == 0;
	char node[64], instead[320];
	struct stat st;

	if (stat(device, &st) < 0)
		return 0;                       /* that is another matter */
	if (S_ISBLK(st.st_mode) && !beneath_dev) {
		(void) snprintf(node, sizeof node, DEV "block/%u:%u", major(st.st_rdev),
		                minor(st.st_rdev));
		name_instead(device, true, instead, sizeof instead);
		if (!*instead)
			name_instead(node, true, instead, sizeof instead);
		return fail_plain(why, ENOTSUP, "%.300s is a block device, but not beneath /dev, where "
		                  "systemd knows it%s", device, instead);
	}
	if (S_ISREG(st.st_mode) && beneath_dev) {
		name_instead(device, false, instead, sizeof instead);
		return fail_plain(why, ENOTSUP, "%.300s is a regular file, but beneath /dev, where "
		                  "systemd waits for a device%s", device,
		                  *instead ? instead : ": put it elsewhere");
	}
	return 0;
}
