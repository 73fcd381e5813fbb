/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl reload: everything that runs takes up what the files say now, and what is new starts
 * listening.  Disturbs no client.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/activate.h"
#include "ctl/catalogue.h"
#include "ctl/command-line.h"

static const struct command command = {
	.verb = "reload",
	.arguments = "",
	.about =
"After files were written by hand: let systemd, the exports and the negotiator\n"
"read them again, and start listening for what is new.  No client is disturbed; a\n"
"bad file leaves what runs as it is.\n",
};

static int reload_files(const struct places *p, const struct files *files, struct failure *why)
{
	int r;

	for (size_t i = 0; i < files->n_bad; i++)
		log_error("%s", files->bad[i].sentence);
	r = activate_all(p, files, why);
	if (r < 0)
		return r;
	(void) printf("reloaded %zu export%s\n", files->n_good, files->n_good == 1 ? "" : "s");
	if (files->n_bad > 0)
		return fail_plain(why, EBADMSG, "%zu file%s bad, and skipped", files->n_bad,
		                  files->n_bad == 1 ? " is" : "s are");
	return 0;
}

static int reload(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct files files;
	int r = files_read(o->places.exports, &files, why);

	if (r < 0)
		return r;
	r = reload_files(&o->places, &files, why);
	files_clear(&files);
	return r;
}

int verb_reload(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, reload);
}
