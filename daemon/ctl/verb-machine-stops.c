/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl machine-stops: for an export's unit, which does not know why it is stopped.  An export
 * that is left as the machine stops can vouch for its device at the next start; one that was
 * stopped alone cannot, since others may have written until the machine stopped.
 */
#include "ctl/verbs.h"

#include "base/clock.h"
#include "ctl/command-line.h"
#include "ctl/running.h"
#include "ctl/units.h"

#define PATIENCE (2 * USEC_PER_SEC)     /* one that does not answer is stopped all the same */

static const struct command command = {
	.verb = "machine-stops",
	.arguments = "LABEL",
	.about =
"Tell an export that the machine stops, if it does.  Its unit calls this before it is\n"
"stopped.\n",
	.min_words = 1,
	.max_words = 1,
};

static int machine_stops(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;

	if (!units_machine_stops() || running_connect(&o->places, label, &bus, &cause) < 0)
		return 0;                       /* who does not run any more has left */
	return control_call(bus, CONTROL_EXPORT(label), "MachineStops", NULL, PATIENCE, NULL, why);
}

int verb_machine_stops(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, machine_stops);
}
