/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl drain: an export finishes what it has, flushes, and takes nobody in.
 */
#include "ctl/verbs.h"

#include <stdio.h>

#include "ctl/command-line.h"
#include "ctl/running.h"

static const struct command command = {
	.verb = "drain",
	.arguments = "LABEL",
	.about =
"Let no new client in, let those there are finish what is in flight, close them,\n"
"flush, and keep it so until `nbdctl resume`.  Ends when the export is drained.\n",
	.min_words = 1,
	.max_words = 1,
};

static int drain(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	AUTO_BUS *bus = NULL;
	int r = running_connect(&o->places, label, &bus, why);

	if (r == 0)
		r = control_call(bus, CONTROL_EXPORT(label), "Drain", NULL, UINT64_MAX, NULL, why);
	if (r == 0)
		(void) printf("drained %s: flushed, and nobody gets in until nbdctl resume %s\n",
		              label, label);
	return r;
}

int verb_drain(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, drain);
}
