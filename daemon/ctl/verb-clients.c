/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl clients: who is connected, to one export or to all.
 */
#include "ctl/verbs.h"

#include <errno.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/command-line.h"
#include "ctl/files.h"
#include "ctl/running.h"
#include "ctl/strays.h"

enum { EXPORT, CONNECTION, ADDRESS, SINCE, MODE, CONTEXTS, READ_ONLY, TLS,
       IDENTITY, REQUESTS, ERRORS, READ,
       WRITTEN, IN_FLIGHT, MEMORY };

static const struct column columns[] = {
	[EXPORT] = { "EXPORT", COLUMN_TEXT, false, "its label" },
	[CONNECTION] = { "CONNECTION", COLUMN_NUMBER, false, "number, for nbdctl kick" },
	[ADDRESS] = { "ADDRESS", COLUMN_TEXT, false, "where the client is" },
	[SINCE] = { "SINCE", COLUMN_TIME, false, "when it was admitted" },
	[MODE] = { "MODE", COLUMN_TEXT, false, "simple, structured or extended" },
	[CONTEXTS] = { "CONTEXTS", COLUMN_LIST, false, "metadata contexts that it may ask for" },
	[READ_ONLY] = { "READ-ONLY", COLUMN_BOOL, true, "whether it may not write" },
	[TLS] = { "TLS", COLUMN_TEXT, false, "version and cipher suite; -: in clear" },
	[IDENTITY] = { "IDENTITY", COLUMN_TEXT, false, "who it is, by TLS" },
	[REQUESTS] = { "REQUESTS", COLUMN_NUMBER, false, "that it has made" },
	[ERRORS] = { "ERRORS", COLUMN_NUMBER, true, "requests that failed" },
	[READ] = { "READ", COLUMN_SIZE, false, "bytes" },
	[WRITTEN] = { "WRITTEN", COLUMN_SIZE, false, "bytes" },
	[IN_FLIGHT] = { "IN-FLIGHT", COLUMN_NUMBER, false, "requests without a reply yet" },
	[MEMORY] = { "MEMORY", COLUMN_SIZE, false, "that its requests hold" },
};

static const struct command command = {
	.verb = "clients",
	.arguments = "[LABEL]",
	.about = "List the clients that are connected, of one export or of all.\n",
	.max_words = 1,
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

static void add_client(struct table *t, const char *label, const struct running_client *c)
{
	table_row(t);
	table_set_text(t, EXPORT, label);
	table_set_number(t, CONNECTION, c->connection);
	table_set_text(t, ADDRESS, c->peer);
	table_set_number(t, SINCE, c->since);
	table_set_text(t, MODE, c->mode);
	table_set_list(t, CONTEXTS, c->contexts);
	table_set_bool(t, READ_ONLY, c->read_only);
	if (c->tls && *c->tls)
		table_set_text(t, TLS, c->tls);
	if (c->identity && *c->identity)
		table_set_text(t, IDENTITY, c->identity);
	table_set_number(t, REQUESTS, c->requests);
	table_set_number(t, ERRORS, c->errors);
	table_set_number(t, READ, c->bytes_read);
	table_set_number(t, WRITTEN, c->bytes_written);
	table_set_number(t, IN_FLIGHT, c->in_flight);
	table_set_number(t, MEMORY, c->memory);
}

static void add_all(struct table *t, const char *label, struct running_client *clients, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add_client(t, label, &clients[i]);
	running_clients_free(clients, n);
}

/* One that does not run has no clients. */
static int add_one(struct table *t, const struct places *p, const char *label,
                   struct failure *why)
{
	struct running_client *clients;
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	size_t n;
	int r = running_connect(p, label, &bus, &cause);

	if (r == -ENOTCONN)
		return 0;
	if (r == 0)
		r = running_clients(bus, label, &clients, &n, &cause);
	if (r < 0)
		*why = cause;
	else
		add_all(t, label, clients, n);
	return r;
}

/* What one export does not tell must not hide the others.  False if it should have told. */
static bool add_answer(struct table *t, const char *label, struct inquiry *inquiry)
{
	struct running_client *clients;
	size_t n;
	int r = running_answer_clients(inquiry, &clients, &n);

	if (r == 0)
		add_all(t, label, clients, n);
	else if (!control_is_absent(r))
		log_error("%s", inquiry->why.text);
	inquiry_clear(inquiry);
	return r == 0 || control_is_absent(r);
}

/* `also`: exports without a file. */
static int add_each(struct table *t, const struct places *p, const struct files *files,
                    const struct stray *also, size_t n_also, size_t *ret_n_silent,
                    struct failure *why)
{
	size_t n = files->n_good + n_also;
	AUTO_FREE const char **labels = calloc(n + 1, sizeof *labels);
	AUTO_FREE struct inquiry *asked = calloc(n + 1, sizeof *asked);

	if (!labels || !asked)
		return fail(why, ENOMEM, "cannot ask %zu exports", n);
	for (size_t i = 0; i < n; i++) {
		labels[i] = i < files->n_good ? files->good[i].label :
		                                also[i - files->n_good].label;
		running_ask_clients(p, labels[i], &asked[i]);
	}
	inquire(asked, n, INQUIRY_PATIENCE);
	for (size_t i = 0; i < n; i++)
		*ret_n_silent += !add_answer(t, labels[i], &asked[i]);
	return 0;
}

static int print_all(struct table *t, const struct places *p, struct failure *why)
{
	struct files files;
	struct stray *strays;
	size_t n_silent = 0, n_strays;
	int r = files_read(p->exports, &files, why);

	if (r < 0)
		return r;
	strays_look(p, &strays, &n_strays);
	r = add_each(t, p, &files, strays, n_strays, &n_silent, why);
	strays_free(strays, n_strays);
	files_clear(&files);
	if (r == 0)
		r = table_print(t, why);
	if (r == 0 && n_silent > 0)
		r = fail_plain(why, EIO, "%zu export%s not told", n_silent,
		               n_silent == 1 ? " has" : "s have");
	return r;
}

static int clients(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct table *t;
	int r = table_new("clients", columns, ARRAY_LEN(columns), &o->table, &t, why);

	if (r < 0)
		return r;
	if (o->n_words == 0) {
		r = print_all(t, &o->places, why);
	} else {
		r = add_one(t, &o->places, o->words[0], why);
		if (r == 0)
			r = table_print(t, why);
	}
	table_free(t);
	return r;
}

int verb_clients(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, clients);
}
