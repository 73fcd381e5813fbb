/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl status: the whole in a few lines, and what needs an administrator.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/negotiator-settings.h"
#include "base/paths.h"
#include "ctl/command-line.h"
#include "ctl/overview.h"
#include "ctl/units.h"

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
	.about =
"Show how the whole is doing.  What needs an administrator has a line on stderr, and\n"
"then the exit status is 3.\n",
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

#define EXIT_ATTENTION 3

struct sum {
	uint64_t running, clients, read, written;
	FILE *problems;                 /* labels, by \n */
};

/* Whether somebody has to look: the exit status. */
static bool attention;

static void PRINTF(1, 2) complain(const char *fmt, ...);
static void complain(const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	(void) vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	log_warning("%s", text);
	attention = true;
}

/* What does not run need not, unless something keeps it from that. */
static bool is_calm(const struct export_state *e)
{
	return strcmp(e->word, "serving") == 0 ||
	       (!e->reason && (strcmp(e->word, "inactive") == 0 || strcmp(e->word, "starting") == 0));
}

/* At most one line for an export: the worst. */
static void judge(const struct export_state *e, struct sum *sum)
{
	const char *label = e->settings->label;
	char when[32];

	if (e->running.flush_failed && *e->running.flush_failed) {
		complain("%s: FLUSH and FUA fail: %s (nbdctl clear-error, once the device is good)",
		         label, e->running.flush_failed);
	} else if (e->runs && e->running.stuck_since) {
		format_time(e->running.stuck_since, when, sizeof when);
		complain("%s: I/O of %s does not end since %s", label, e->settings->device, when);
	} else if (!is_calm(e)) {
		complain("%s: %s%s%s", label, e->word, e->reason ? ": " : "",
		         e->reason ? e->reason : "");
	} else if (e->runs && e->running.bitmap_problem && *e->running.bitmap_problem) {
		complain("%s: %s (nbdctl bitmap list %s)", label, e->running.bitmap_problem, label);
	} else {
		return;
	}
	(void) fprintf(sum->problems, "%s%s", ftell(sum->problems) > 0 ? "\n" : "", label);
}

static void add_export(const struct export_state *e, struct sum *sum)
{
	judge(e, sum);
	if (!e->runs)
		return;
	sum->running++;
	sum->clients += e->running.connections;
	sum->read += e->running.bytes_read;
	sum->written += e->running.bytes_written;
}

/* 0, or why it does not answer. */
static int add_negotiator(struct table *t, struct inquiry *inquiry)
{
	struct running_negotiator n = { 0 };
	int r = running_answer_negotiator(inquiry, &n);

	if (r < 0) {
		table_set_text(t, NEGOTIATOR, control_is_absent(r) ? "inactive" : "no-answer");
		if (!control_is_absent(r))
			complain("%s", inquiry->why.text);
		return r;
	}
	table_set_text(t, NEGOTIATOR, "running");
	table_set_number(t, SINCE, n.since);
	table_set_number(t, HANDSHAKES, n.handshakes);
	table_set_number(t, HANDED_ON, n.clients);
	table_set_number(t, REFUSED, n.refused);
	return 0;
}

static void add_sum(struct table *t, const struct sum *sum, const char *problems,
                    const struct files *files)
{
	table_set_number(t, EXPORTS, files->n_good);
	table_set_number(t, RUNNING, sum->running);
	table_set_number(t, BAD_FILES, files->n_bad);
	table_set_number(t, CLIENTS, sum->clients);
	table_set_number(t, READ, sum->read);
	table_set_number(t, WRITTEN, sum->written);
	table_set_list(t, PROBLEMS, problems);
}

static void judge_clients_socket(const struct units *u)
{
	char state[32];

	units_state(u, NEGOTIATOR_SOCKET, state, sizeof state);
	if (*state && strcmp(state, "active") != 0)
		complain("nobody listens for clients: systemctl enable --now " NEGOTIATOR_SOCKET);
}

/* One that waits for its first client is calm; one that is started again and again is not. */
static void judge_negotiator(const struct units *u)
{
	char state[32], text[512];
	uint32_t n = 0;

	units_state(u, NEGOTIATOR_SERVICE, state, sizeof state);
	if (strcmp(state, "activating") == 0)
		n = units_restarts(u, NEGOTIATOR_SERVICE);
	if (n == 0 && strcmp(state, "failed") != 0)
		return;
	units_text(u, NEGOTIATOR_SERVICE, "Service", "StatusText", text, sizeof text);
	complain("nobody can connect: " NEGOTIATOR_SERVICE " %s%s%s (journalctl -u "
	         NEGOTIATOR_SERVICE ")", n ? "is started again and again" : "has failed",
	         *text ? ": " : "", text);
}

/* Whether negotiator.conf is good, or not for us to read. */
static bool judge_settings(bool absent)
{
	struct failure why = { 0 };
	int r = negotiator_settings_check(NEGOTIATOR_CONF, &why);

	if (r >= 0 || r == -EACCES)
		return true;
	complain("%s (%s)", why.text, absent ? "so nobody can connect" : "older settings hold");
	return false;
}

/* What no client gets around; `r`: add_negotiator()'s. */
static void look_at_way_in(const struct places *p, int r)
{
	bool absent = control_is_absent(r), good = p->of_units && judge_settings(absent);
	struct failure ignored = { 0 };
	struct units u = { .bus = NULL };

	if (p->of_units && units_connect(&u, &ignored) == 0) {
		judge_clients_socket(&u);
		if (absent && good)
			judge_negotiator(&u);
	}
	units_close(&u);
}

static int fill(struct table *t, const struct places *places, const struct overview *all,
                struct inquiry *negotiator, struct failure *why)
{
	AUTO_FREE char *problems = NULL;
	size_t size;
	struct sum sum = { .problems = open_memstream(&problems, &size) };

	if (!sum.problems)
		return fail(why, ENOMEM, "cannot list the problems");
	table_row(t);
	look_at_way_in(places, add_negotiator(t, negotiator));
	for (size_t i = 0; i < all->n; i++)
		add_export(&all->states[i], &sum);
	for (size_t i = 0; i < all->files.n_bad; i++)
		complain("%s", all->files.bad[i].sentence);
	if (fclose(sum.problems) != 0)
		return fail(why, ENOMEM, "cannot list the problems");
	add_sum(t, &sum, problems, &all->files);
	return 0;
}

static int print(const struct verb_options *o, const struct overview *all,
                 struct inquiry *negotiator, struct failure *why)
{
	struct table *t;
	int r = table_new("status", columns, ARRAY_LEN(columns), &o->table, &t, why);

	if (r < 0)
		return r;
	r = fill(t, &o->places, all, negotiator, why);
	if (r == 0)
		r = table_print_upright(t, why);
	table_free(t);
	return r;
}

static int status(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct inquiry negotiator;
	struct overview all;
	int r;

	running_ask_negotiator(&o->places, &negotiator);
	r = overview_read(&o->places, &negotiator, &all, why);
	if (r < 0)
		return r;
	r = print(o, &all, &negotiator, why);
	inquiry_clear(&negotiator);
	overview_clear(&all);
	return r;
}

int verb_status(int argc, char **argv)
{
	struct verb_options o = { 0 };
	int code = command_run(&command, argc, argv, &o, status);

	return code == 0 && attention ? EXIT_ATTENTION : code;
}
