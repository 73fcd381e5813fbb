/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl tls check: nbd-tls looks at the files, since it alone reads keys; this prints what it
 * has found.
 */
#include "ctl/verb-tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/paths.h"
#include "base/settings.h"
#include "ctl/programs.h"
#include "ctl/run-program.h"

#define OUTPUT_SIZE (1u << 18)
#define USEC_PER_SEC UINT64_C(1000000)

struct check_options {
	struct verb_options common;
	struct tls_words hosts;
	uint32_t within;
};

static const struct verb_option options[] = {
	{ 0, "host", "NAME", tls_option_host, offsetof(struct check_options, hosts),
	  "a name or address by which clients reach the server: its\n"
	  "certificate must be for it; may be given several times\n" },
	{ 0, "within", "DAYS", setting_u32, offsetof(struct check_options, within),
	  "tell of what expires so soon (30)\n" },
};

/* The first ones are the fields of nbd-tls's lines, in their order. */
enum { FILE_NAME, RESULT, EXPIRES, SUBJECT, PROBLEM, N_COLUMNS };

static const struct column columns[] = {
	[FILE_NAME] = { "FILE", COLUMN_TEXT, false, "its name; \".\" is the folder" },
	[RESULT] = { "RESULT", COLUMN_TEXT, false, "good, soon (it expires), bad or absent" },
	[EXPIRES] = { "EXPIRES", COLUMN_TIME, false, "when it does" },
	[SUBJECT] = { "SUBJECT", COLUMN_TEXT, false, "of the certificate" },
	[PROBLEM] = { "PROBLEM", COLUMN_TEXT, false, "a sentence" },
};

static const struct command command = {
	.verb = "tls check",
	.arguments = "[DIR]",
	.about =
"Check the keys and certificates in DIR (" TLS_DIR "), as nbd-tls would\n"
"read them.  Exit status 1 if one is bad, or expires soon.\n",
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
	.columns = columns,
	.n_columns = N_COLUMNS,
};

/* Cuts the line into its fields, in place.  False if it is no line of the kind. */
static bool cut_fields(char *line, char *ret[N_COLUMNS])
{
	size_t n = 0;

	for (char *next = line; n < N_COLUMNS && next; n++) {
		ret[n] = next;
		next = strchr(next, '\t');
		if (next)
			*next++ = '\0';
	}
	return n == N_COLUMNS;
}

/* Whether it is a line that needs somebody. */
static bool add_row(struct table *t, char *field[N_COLUMNS])
{
	table_row(t);
	for (size_t i = 0; i < N_COLUMNS; i++) {
		if (strcmp(field[i], "-") == 0)
			continue;
		if (i == EXPIRES)
			table_set_number(t, i, strtoull(field[i], NULL, 10) * USEC_PER_SEC);
		else
			table_set_text(t, i, field[i]);
	}
	return strcmp(field[RESULT], "bad") == 0 || strcmp(field[RESULT], "soon") == 0;
}

/* How many lines there were, and how many need somebody. */
static void add_rows(struct table *t, char *text, size_t *ret_n, size_t *ret_wrong)
{
	char *field[N_COLUMNS];

	*ret_n = *ret_wrong = 0;
	for (char *line = text, *end; line && *line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (!cut_fields(line, field))
			continue;
		*ret_wrong += add_row(t, field);
		++*ret_n;
	}
}

static int ask(const struct check_options *o, const char *folder, char *ret, size_t size,
               struct failure *why)
{
	const char *argv[2 * TLS_WORDS_MAX + 8];
	AUTO_FREE char *program = NULL;
	AUTO_FREE char *credentials = NULL;
	char within[32];
	size_t n = 0;
	int r = program_find("nbd-tls", &program, why);

	if (r < 0)
		return r;
	if (asprintf(&credentials, "--credentials=%s", folder) < 0) {
		credentials = NULL;
		return fail(why, ENOMEM, "cannot check %.300s", folder);
	}
	(void) snprintf(within, sizeof within, "--within=%u", o->within);
	argv[n++] = program;
	argv[n++] = "--check";
	argv[n++] = credentials;
	argv[n++] = within;
	for (size_t i = 0; i < o->hosts.n; i++) {
		argv[n++] = "--host";
		argv[n++] = o->hosts.word[i];
	}
	argv[n] = NULL;
	return run_program(argv, NULL, ret, size, why);
}

static int print(const char *folder, char *text, struct table *t, struct failure *why)
{
	AUTO_FREE char *last = strdup(text);
	size_t n, n_wrong;
	int r;

	add_rows(t, text, &n, &n_wrong);
	if (n == 0)
		return fail_plain(why, EIO, "cannot check %.200s: %.250s", folder,
		                  last ? run_last_line(last) : "");
	r = table_print(t, why);
	if (r == 0 && n_wrong)
		r = fail_plain(why, EBADMSG, "%zu problem%s in %.300s", n_wrong,
		               n_wrong == 1 ? "" : "s", folder);
	return r;
}

static int check(const void *options_read, struct failure *why)
{
	const struct check_options *o = options_read;
	const char *folder = o->common.n_words ? o->common.words[0] : TLS_DIR;
	AUTO_FREE char *text = malloc(OUTPUT_SIZE);
	struct table *t;
	int r = text ? ask(o, folder, text, OUTPUT_SIZE, why)
	             : fail(why, ENOMEM, "cannot check %.300s", folder);

	if (r < 0)
		return r;
	r = table_new("files", columns, N_COLUMNS, &o->common.table, &t, why);
	if (r < 0)
		return r;
	r = print(folder, text, t, why);
	table_free(t);
	return r;
}

int tls_verb_check(int argc, char **argv)
{
	struct check_options o = { .within = 30 };

	return command_run(&command, argc, argv, &o, check);
}
