/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/device-check.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/attr.h"
#include "ctl/programs.h"
#include "ctl/run-program.h"

#define DEV "/dev/"
#define SERVICE_USER "nbd-export"
#define DISK_GROUP "disk"
#define TEXT_SIZE 2048u

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

/* The last line that is not empty, without "nbd-export[web1]: error: " before it. */
static const char *sentence_of(char *text, const char *label)
{
	static const char *const prefixes[] = { "nbd-export", "[", "", "]", ": ", "error: " };
	const char *line = run_last_line(text);

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

	if (status == 0)
		return 0;
	if (status == RUN_CANNOT && !*sentence)
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
	char exports[96], text[TEXT_SIZE];
	const char *argv[] = { program, exports, "--check", "--", s->label, NULL };
	int status;

	(void) snprintf(exports, sizeof exports, "--exports=%s", t->folder);
	status = run_program(argv, as_service ? become_service : NULL, text, sizeof text, why);
	if (status < 0)
		return fail_while(why, "cannot check %.300s", s->device);
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
