/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl log: the export's journal, with what the negotiator says about it.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <string.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/log.h"
#include "base/settings.h"
#include "ctl/command-line.h"
#include "ctl/journal.h"

#define LINES_BEFORE_FOLLOWING 10u      /* as journalctl */

struct log_options {
	struct verb_options common;
	bool follow;
	bool counts;                    /* -n was given */
	uint32_t lines;
	const char *folder;
};

static int parse_lines(const char *value, void *into, struct failure *why)
{
	struct log_options *o = into;

	o->counts = strcmp(value, "all") != 0;
	return o->counts ? setting_u32(value, &o->lines, why) : 0;
}

static const struct verb_option options[] = {
	{ 'f', "follow", NULL, option_flag, offsetof(struct log_options, follow),
	  "go on with the entries that come, until Ctrl-C\n" },
	{ 'n', "lines", "N", parse_lines, 0,
	  "only the last N entries (all; with -f 10)\n" },
	{ 'D', "directory", "DIR", option_text, offsetof(struct log_options, folder),
	  "the journal in this folder, instead of this system's\n" },
};

static const struct command command = {
	.verb = "log",
	.arguments = "LABEL",
	.about =
"Print what the journal has about an export: its own entries, systemd's about its\n"
"units, and the negotiator's.  journalctl -x -u nbd-export@LABEL explains them.\n"
"(`nbdctl serve` keeps no journal: it logs to its stderr.)\n",
	.min_words = 1,
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int print(const void *options_read, struct failure *why)
{
	const struct log_options *o = options_read;
	uint64_t lines = o->follow ? LINES_BEFORE_FOLLOWING : JOURNAL_ALL;
	int r = export_label_check(o->common.words[0], why);

	if (r < 0)
		return r;
	if (o->counts)
		lines = o->lines;
	r = journal_print(o->common.words[0], o->folder, lines, o->follow, why);
	if (r == 0 && !o->counts)
		log_notice("the journal has no entry about %s, or none that you may read",
		           o->common.words[0]);
	return r < 0 ? r : 0;
}

int verb_log(int argc, char **argv)
{
	struct log_options o = { .follow = false };

	return command_run(&command, argc, argv, &o, print);
}
