/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl reload: everything that runs takes up what the files say now, what is new starts
 * listening, and what has no file any more stops.  Disturbs no client.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/activate.h"
#include "ctl/command-line.h"
#include "ctl/files.h"
#include "ctl/folder-lock.h"
#include "ctl/quiesce.h"
#include "ctl/running.h"
#include "ctl/strays.h"

static const struct command command = {
	.verb = "reload",
	.arguments = "",
	.about =
"After files were written by hand: let systemd, the exports and the negotiator\n"
"read them again, start listening for what is new, and stop what has no file any\n"
"more.  No client is disturbed; a bad file leaves what runs as it is.\n",
};

/* Whoever it serves goes on: that is for an administrator to decide. */
static int stop_stray(const struct places *p, const char *label, struct failure *why)
{
	static const struct quiesce_options gently = { .drain = false };
	struct failure ignored = { 0 };
	AUTO_BUS *bus = NULL;
	bool drained = false;
	int r = 0;

	if (running_connect(p, label, &bus, &ignored) == 0)
		r = quiesce(&gently, bus, label, true, &drained, why);
	if (r < 0)
		return fail_while(why, "%s has no file any more, and runs: nbdctl remove %s", label,
		                  label);
	control_close(&bus);
	r = deactivate(p, label, false, why);
	if (r < 0)
		return fail_while(why, "%s has no file any more", label);
	stray_clear(p, label);
	(void) printf("stopped %s, which has no file any more\n", label);
	return 0;
}

/* How many go on. */
static int stop_strays(const struct places *p, size_t *ret_n, struct failure *why)
{
	struct stray *strays;
	size_t n;
	int r;

	*ret_n = 0;
	if (!p->of_units)
		return 0;
	r = strays_read(p, &strays, &n, why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct failure cause = { 0 };

		if (stop_stray(p, strays[i].label, &cause) < 0) {
			log_error("%s", cause.text);
			++*ret_n;
		}
	}
	strays_free(strays, n);
	return 0;
}

/* What cannot be reloaded keeps nothing from being stopped.  Both tell, if not the same. */
static int follow(const struct places *p, const struct files *files, size_t *ret_n_strays,
                  struct failure *why)
{
	struct failure cause = { 0 };
	int r = activate_all(p, files, why);

	if (stop_strays(p, ret_n_strays, &cause) == 0)
		return r;
	if (r == 0)
		*why = cause;
	else if (strcmp(cause.text, why->text) != 0)
		log_error("%s", cause.text);
	return -why->code;
}

static int reload_files(const struct places *p, const struct files *files, struct failure *why)
{
	size_t n_strays;
	int r;

	for (size_t i = 0; i < files->n_bad; i++)
		log_error("%s", files->bad[i].sentence);
	r = follow(p, files, &n_strays, why);
	if (r < 0)
		return r;
	(void) printf("reloaded %zu export%s\n", files->n_good, files->n_good == 1 ? "" : "s");
	if (files->n_bad > 0)
		return fail_plain(why, EBADMSG, "%zu file%s bad, and skipped", files->n_bad,
		                  files->n_bad == 1 ? " is" : "s are");
	if (n_strays > 0)
		return fail_plain(why, EBUSY, "%zu export%s without a file could not be stopped",
		                  n_strays, n_strays == 1 ? "" : "s");
	return 0;
}

static int reload_locked(const struct places *p, struct failure *why)
{
	struct files files;
	int r = files_read(p->exports, &files, why);

	if (r < 0)
		return r;
	r = reload_files(p, &files, why);
	files_clear(&files);
	return r;
}

/* What is being added has no file yet, or no unit. */
static int reload(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	AUTO_FD lock = -1;
	int r = o->places.of_units ? folder_lock(&o->places, &lock, why) : 0;

	return r < 0 ? r : reload_locked(&o->places, why);
}

int verb_reload(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, reload);
}
