/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl clear-error: an administrator's word that the device is good again, after a flush
 * that failed.  An export that does not run remembers it in its runtime folder.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "ctl/command-line.h"
#include "ctl/running.h"

#define REASON_SIZE 256u

static const struct command command = {
	.verb = "clear-error",
	.arguments = "LABEL",
	.about =
"After a flush that failed, FLUSH and FUA go on failing, since data that was\n"
"acknowledged may be lost, until this says that the device was looked after.\n",
	.min_words = 1,
	.max_words = 1,
};

static void tell(const char *label, const char *what)
{
	(void) printf("cleared the error of %s: %s\n", label, what);
}

static int clear_running(sd_bus *bus, const char *label, struct failure *why)
{
	AUTO_MESSAGE *reply = NULL;
	const char *what;
	int r = control_call(bus, CONTROL_EXPORT(label), "ClearError", NULL, CONTROL_PATIENCE,
	                     &reply, why);

	if (r < 0)
		return r;
	r = sd_bus_message_read_basic(reply, 's', &what);
	if (r < 0)
		return fail(why, -r, "cannot understand %s", label);
	tell(label, what);
	return 0;
}

static void read_reason(const char *path, char *ret, size_t size)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	if (!*ret)
		(void) snprintf(ret, size, "a flush had failed");
}

static int clear_files(const char *label, const glob_t *found, struct failure *why)
{
	char reason[REASON_SIZE] = "";

	if (found->gl_pathc == 0)
		return fail_plain(why, ENODATA, "%s: no flush has failed", label);
	for (size_t i = 0; i < found->gl_pathc; i++) {
		const char *path = found->gl_pathv[i];

		read_reason(path, reason, sizeof reason);
		if (unlink(path) < 0)
			return fail(why, errno, "cannot remove %s", path);
	}
	tell(label, reason);
	return 0;
}

static int clear_remembered(const struct places *p, const char *label, struct failure *why)
{
	AUTO_FREE char *pattern = NULL;
	glob_t found = { 0 };
	int r;

	if (asprintf(&pattern, "%s/instances/%s/flush-failed-*", p->runtime, label) < 0) {
		pattern = NULL;
		return fail(why, ENOMEM, "cannot look for %s's errors", label);
	}
	r = glob(pattern, GLOB_NOESCAPE, NULL, &found);
	if (r != 0 && r != GLOB_NOMATCH)
		return fail(why, r == GLOB_NOSPACE ? ENOMEM : EACCES,
		            "cannot look for %s's errors", label);
	r = clear_files(label, &found, why);
	globfree(&found);
	return r;
}

static int clear_error(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	int r = running_connect(&o->places, label, &bus, &cause);

	if (r == 0)
		return clear_running(bus, label, why);
	if (r != -ENOTCONN) {
		*why = cause;
		return r;
	}
	return clear_remembered(&o->places, label, why);
}

int verb_clear_error(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, clear_error);
}
