/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl status: the whole in a few lines, and what needs an administrator.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/catalogue.h"
#include "ctl/command-line.h"
#include "ctl/export-state.h"

enum { NEGOTIATOR, SINCE, HANDSHAKES, HANDED_ON, REFUSED, EXPORTS, RUNNING, BAD_FILES, CLIENTS,
       READ, WRITTEN, PROBLEMS };

static const struct column columns[] = {
	[NEGOTIATOR] = { "NEGOTIATOR", COLUMN_TEXT, false, "running, inactive or no-answer" },
	[SINCE] = { "SINCE", COLUMN_TIME, false, "when it started" },
	[HANDSHAKES] = { "HANDSHAKES", COLUMN_NUMBER, false, "clients that it is talking to" },
	[HANDED_ON] = { "HANDED-ON", COLUMN_NUMBER, true, "clients that it knows at exports" },
	[REFUSED] = { "REFUSED", COLUMN_NUMBER, false, "clients turned away since then" },
	[EXPORTS] = { "EXPORTS", COLUMN_NUMBER, false, "files that are good" },
	[RUNNING] = { "RUNNING", COLUMN_NUMBER, false, "exports that have a process" },
	[BAD_FILES] = { "BAD-FILES", COLUMN_NUMBER, false, "files that are not" },
	[CLIENTS] = { "CLIENTS", COLUMN_NUMBER, false, "connected to exports" },
	[READ] = { "READ", COLUMN_SIZE, false, "by clients, of what runs" },
	[WRITTEN] = { "WRITTEN", COLUMN_SIZE, false, "by clients, of what runs" },
	[PROBLEMS] = { "PROBLEMS", COLUMN_LIST, false, "labels of exports with one" },
};

static const struct command command = {
	.verb = "status",
	.arguments = "",
	.about = "Show how the whole is doing.  What needs an administrator has a line on stderr.\n",
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

struct sum {
	uint64_t running, clients, read, written;
	char problems[1024];
};

static void note_problem(struct sum *sum, const char *label)
{
	size_t len = strlen(sum->problems);

	(void) snprintf(sum->problems + len, sizeof sum->problems - len, "%s%s", len ? "\n" : "",
	                label);
}

/* At most one line for an export: the worst. */
static void judge(const struct export_state *e, struct sum *sum)
{
	const char *label = e->settings->label;
	char when[32];

	if (e->runs && e->running.flush_failed && *e->running.flush_failed) {
		log_warning("%s: FLUSH and FUA fail: %s (nbdctl clear-error, once the device is "
		            "good)", label, e->running.flush_failed);
	} else if (e->runs && e->running.stuck_since) {
		format_time(e->running.stuck_since, when, sizeof when);
		log_warning("%s: I/O of %s does not end since %s", label, e->settings->device, when);
	} else if (strcmp(e->word, "serving") != 0 && strcmp(e->word, "inactive") != 0) {
		log_warning("%s: %s%s%s", label, e->word, e->reason ? ": " : "",
		            e->reason ? e->reason : "");
	} else {
		return;
	}
	note_problem(sum, label);
}

static void add_export(const struct places *p, const struct export_settings *s, struct sum *sum)
{
	struct export_state e;

	export_state_read(p, s, &e);
	judge(&e, sum);
	if (e.runs) {
		sum->running++;
		sum->clients += e.running.connections;
		sum->read += e.running.bytes_read;
		sum->written += e.running.bytes_written;
	}
	export_state_clear(&e);
}

static void add_negotiator(struct table *t, const struct places *p)
{
	struct running_negotiator n = { 0 };
	struct failure why = { 0 };
	int r = running_negotiator(p, &n, &why);

	if (r < 0) {
		table_set_text(t, NEGOTIATOR, control_is_absent(r) ? "inactive" : "no-answer");
		if (!control_is_absent(r))
			log_warning("%s", why.text);
		return;
	}
	table_set_text(t, NEGOTIATOR, "running");
	table_set_number(t, SINCE, n.since);
	table_set_number(t, HANDSHAKES, n.handshakes);
	table_set_number(t, HANDED_ON, n.clients);
	table_set_number(t, REFUSED, n.refused);
}

static void fill(struct table *t, const struct places *p, const struct files *files)
{
	struct sum sum = { 0 };

	table_row(t);
	add_negotiator(t, p);
	for (size_t i = 0; i < files->n_good; i++)
		add_export(p, &files->good[i], &sum);
	for (size_t i = 0; i < files->n_bad; i++)
		log_warning("%s", files->bad[i].sentence);
	table_set_number(t, EXPORTS, files->n_good);
	table_set_number(t, RUNNING, sum.running);
	table_set_number(t, BAD_FILES, files->n_bad);
	table_set_number(t, CLIENTS, sum.clients);
	table_set_number(t, READ, sum.read);
	table_set_number(t, WRITTEN, sum.written);
	table_set_list(t, PROBLEMS, sum.problems);
}

static int status(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct table *t;
	struct files files;
	int r = files_read(o->places.exports, &files, why);

	if (r < 0)
		return r;
	r = table_new("status", columns, ARRAY_LEN(columns), &o->table, &t, why);
	if (r == 0) {
		fill(t, &o->places, &files);
		r = table_print_upright(t, why);
		table_free(t);
	}
	files_clear(&files);
	return r;
}

int verb_status(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, status);
}
