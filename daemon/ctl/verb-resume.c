/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl resume: ends what drain began.
 */
#include "ctl/verbs.h"

#include <stdio.h>

#include "ctl/command-line.h"
#include "ctl/running.h"

static const struct command command = {
	.verb = "resume",
	.arguments = "LABEL",
	.about = "Let clients in again after `nbdctl drain`.\n",
	.min_words = 1,
	.max_words = 1,
};

static int resume(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	AUTO_BUS *bus = NULL;
	int r = running_connect(&o->places, label, &bus, why);

	if (r == 0)
		r = control_call(bus, CONTROL_EXPORT(label), "Resume", NULL, CONTROL_PATIENCE, NULL,
		                 why);
	if (r == 0)
		(void) printf("%s serves again\n", label);
	return r;
}

int verb_resume(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, resume);
}
