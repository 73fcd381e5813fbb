/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl list: every export that there is a file for, and what runs without one.
 */
#include "ctl/verbs.h"

#include "base/attr.h"
#include "base/log.h"
#include "ctl/command-line.h"
#include "ctl/overview.h"

enum { LABEL, NAME, DEVICE, SIZE, MODE, STATE, CLIENTS, DESCRIPTION, REASON, READ, WRITTEN,
       REQUESTS, ERRORS, SINCE, ALLOW, DEFAULT, BOOT };

static const struct column columns[] = {
	[LABEL] = { "LABEL", COLUMN_TEXT, false, "of the file, LABEL.conf, and of units" },
	[NAME] = { "NAME", COLUMN_TEXT, false, "for clients" },
	[DEVICE] = { "DEVICE", COLUMN_TEXT, false, "the block device or file" },
	[SIZE] = { "SIZE", COLUMN_SIZE, false, "its size" },
	[MODE] = { "MODE", COLUMN_TEXT, false, "rw or ro" },
	[STATE] = { "STATE", COLUMN_TEXT, false,
	            "serving, draining, drained, no-device, inactive, starting,\n"
	            "failed, bad-file, no-file, no-answer" },
	[CLIENTS] = { "CLIENTS", COLUMN_NUMBER, false, "connected" },
	[DESCRIPTION] = { "DESCRIPTION", COLUMN_TEXT, true, "for clients" },
	[REASON] = { "REASON", COLUMN_TEXT, true, "of the state, a sentence" },
	[READ] = { "READ", COLUMN_SIZE, true, "by clients, since it runs" },
	[WRITTEN] = { "WRITTEN", COLUMN_SIZE, true, "by clients, since it runs" },
	[REQUESTS] = { "REQUESTS", COLUMN_NUMBER, true, "of clients, since it runs" },
	[ERRORS] = { "ERRORS", COLUMN_NUMBER, true, "requests that failed" },
	[SINCE] = { "SINCE", COLUMN_TIME, true, "when its process started" },
	[ALLOW] = { "ALLOW", COLUMN_TEXT, true, "who gets in" },
	[DEFAULT] = { "DEFAULT", COLUMN_BOOL, true, "whether it answers to the empty name" },
	[BOOT] = { "START-AT-BOOT", COLUMN_BOOL, true, "whether it starts with the machine" },
};

static const struct command command = {
	.verb = "list",
	.arguments = "",
	.about = "List the exports, whether they run or not.\n",
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

static void add_running(struct table *t, const struct running *r)
{
	table_set_number(t, CLIENTS, r->connections);
	table_set_number(t, READ, r->bytes_read);
	table_set_number(t, WRITTEN, r->bytes_written);
	table_set_number(t, REQUESTS, r->requests);
	table_set_number(t, ERRORS, r->errors);
	table_set_number(t, SINCE, r->since);
}

static void add_export(struct table *t, const struct export_state *e)
{
	const struct export_settings *s = e->settings;

	table_row(t);
	table_set_text(t, LABEL, s->label);
	table_set_text(t, NAME, s->name);
	table_set_text(t, DEVICE, s->device);
	table_set_text(t, MODE, (e->runs ? e->running.read_only : s->read_only) ? "ro" : "rw");
	table_set_text(t, STATE, e->word);
	table_set_text(t, DESCRIPTION, s->description);
	table_set_text(t, REASON, e->reason);
	table_set_text(t, ALLOW, s->allow);
	table_set_bool(t, DEFAULT, s->is_default);
	table_set_bool(t, BOOT, s->start_at_boot);
	if (e->has_size)
		table_set_number(t, SIZE, e->size);
	if (e->runs)
		add_running(t, &e->running);
	else if (!e->silent)
		table_set_number(t, CLIENTS, 0);
}

static void add_bad(struct table *t, const struct bad_file *bad)
{
	log_warning("%s", bad->sentence);
	table_row(t);
	table_set_text(t, LABEL, bad->label ? bad->label : bad->path);
	table_set_text(t, STATE, "bad-file");
	table_set_text(t, REASON, bad->sentence);
}

static int print(const struct overview *all, const struct table_wishes *wishes,
                 struct failure *why)
{
	struct table *t;
	int r = table_new("exports", columns, ARRAY_LEN(columns), wishes, &t, why);

	if (r < 0)
		return r;
	for (size_t i = 0; i < all->n; i++)
		add_export(t, &all->states[i]);
	for (size_t i = 0; i < all->files.n_bad; i++)
		add_bad(t, &all->files.bad[i]);
	r = table_print(t, why);
	table_free(t);
	return r;
}

static int list(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct overview all;
	int r = overview_read(&o->places, NULL, &all, why);

	if (r < 0)
		return r;
	r = print(&all, &o->table, why);
	overview_clear(&all);
	return r;
}

int verb_list(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, list);
}
