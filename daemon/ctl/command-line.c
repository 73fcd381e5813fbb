/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/command-line.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/paths.h"
#include "ctl/verbs.h"

#define MAX_OPTIONS 40u
#define HELP_VALUE 1000                 /* getopt's answers: rows from here on */
#define FIRST_ROW 1001

int option_flag(const char *value, void *boolean, struct failure *why)
{
	(void) value;
	(void) why;
	*(bool *) boolean = true;
	return 0;
}

int option_text(const char *value, void *char_pointer, struct failure *why)
{
	(void) why;
	*(const char **) char_pointer = value;
	return 0;
}

static const struct verb_option table_options[] = {
	{ 0, "json", NULL, option_flag, offsetof(struct verb_options, table.json),
	  "print JSON\n" },
	{ 'o', "output", "COLUMNS", option_text, offsetof(struct verb_options, table.columns),
	  "these columns, with commas between them; +COLUMN adds one\n" },
	{ 0, "noheadings", NULL, option_flag, offsetof(struct verb_options, table.no_headings),
	  "print no headings\n" },
};

static const struct verb_option common_options[] = {
	{ 0, "exports", "DIR", option_text, offsetof(struct verb_options, exports),
	  "the folder of the exports' files, LABEL.conf\n"
	  "(" EXPORTS_DIR ")\n" },
	{ 0, "runtime", "DIR", option_text, offsetof(struct verb_options, runtime),
	  "where the running daemons are found: of `nbdctl serve`, its\n"
	  "private folder (NBD_EXPORT_RUNTIME, or " RUN_DIR ")\n" },
};

/* The rows that a command has, its own first. */
struct rows {
	const struct verb_option *row[MAX_OPTIONS];
	size_t n;
};

static void add_rows(struct rows *all, const struct verb_option *rows, size_t n)
{
	assert(all->n + n <= MAX_OPTIONS);
	for (size_t i = 0; i < n; i++)
		all->row[all->n++] = &rows[i];
}

static struct rows rows_of(const struct command *command)
{
	struct rows all = { .n = 0 };

	add_rows(&all, command->options, command->n_options);
	if (command->n_columns)
		add_rows(&all, table_options, ARRAY_LEN(table_options));
	add_rows(&all, common_options, ARRAY_LEN(common_options));
	return all;
}

static void print_option(const struct verb_option *row)
{
	const char *line = row->help;
	const char *gap = row->value && row->value[0] != '[' ? " " : "";
	char left[48];

	if (row->letter)
		(void) snprintf(left, sizeof left, "-%c, --%s%s%s", row->letter, row->name, gap,
		                row->value ? row->value : "");
	else
		(void) snprintf(left, sizeof left, "--%s%s%s", row->name, gap,
		                row->value ? row->value : "");
	if (strlen(left) > 24) {
		(void) printf("  %s\n", left);
		left[0] = '\0';
	}
	while (*line) {
		int len = (int) strcspn(line, "\n");

		(void) printf("  %-24s %.*s\n", left, len, line);
		line += len + 1;
		left[0] = '\0';
	}
}

static void print_help(const struct command *command)
{
	struct rows all = rows_of(command);

	(void) printf("Usage: nbdctl %s [OPTION...]%s%s\n\n%s\n", command->verb,
	              *command->arguments ? " " : "", command->arguments, command->about);
	for (size_t i = 0; i < all.n; i++)
		print_option(all.row[i]);
	(void) printf("  %-24s show this text\n", "--help");
	if (command->n_columns)
		table_print_columns(command->columns, command->n_columns);
	(void) printf("\nExit status: 0 done; 1 not done, with a sentence that says why;\n"
	              "2 for a wrong command line.\n");
}

/* getopt's two tables, made from ours. */
static void make_getopt(const struct rows *all, struct option *ret_long, char *ret_short)
{
	*ret_short++ = ':';
	for (size_t i = 0; i < all->n; i++) {
		const struct verb_option *row = all->row[i];

		ret_long[i] = (struct option) {
			.name = row->name,
			.has_arg = !row->value ? no_argument :
			           row->value[0] == '[' ? optional_argument : required_argument,
			.val = FIRST_ROW + (int) i,
		};
		if (row->letter) {
			*ret_short++ = row->letter;
			if (row->value)
				*ret_short++ = ':';
		}
	}
	*ret_short = '\0';
	ret_long[all->n] = (struct option) { .name = "help", .val = HELP_VALUE };
	ret_long[all->n + 1] = (struct option) { 0 };
}

static const struct verb_option *find_row(const struct rows *all, int answer)
{
	if (answer >= FIRST_ROW)
		return all->row[answer - FIRST_ROW];
	for (size_t i = 0; i < all->n; i++)
		if (all->row[i]->letter == answer)
			return all->row[i];
	return NULL;
}

/* 1 for --help, 0 for a good command line, -errno. */
static int read_options(const struct command *command, int argc, char **argv, void *options,
                        struct failure *why)
{
	struct rows all = rows_of(command);
	struct option long_options[MAX_OPTIONS + 2];
	char short_options[2 * MAX_OPTIONS + 2];
	int c;

	make_getopt(&all, long_options, short_options);
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
		const struct verb_option *row;

		if (c == HELP_VALUE)
			return 1;
		if (c == ':')
			return fail_plain(why, EINVAL, "%s needs a value", argv[optind - 1]);
		row = find_row(&all, c);
		if (!row)
			return fail_plain(why, EINVAL, "there is no such option, or not with a "
			                  "value: %s", argv[optind - 1]);
		if (row->parse(optarg ? optarg : "", (char *) options + row->offset, why) < 0)
			return fail_while(why, "--%s", row->name);
	}
	return 0;
}

static int check_words(const struct command *command, const struct verb_options *o,
                       struct failure *why)
{
	if (o->n_words < command->min_words)
		return fail_plain(why, EINVAL, "%s %s: something is missing", command->verb,
		                  command->arguments);
	if (o->n_words > command->max_words)
		return fail_plain(why, EINVAL, "\"%s\" is too much", o->words[command->max_words]);
	return 0;
}

static int fill(const struct command *command, int argc, char **argv, void *options,
                struct failure *why)
{
	struct verb_options *o = options;
	int r = read_options(command, argc, argv, options, why);

	if (r != 0)
		return r;
	o->words = argv + optind;
	o->n_words = (size_t) (argc - optind);
	r = check_words(command, o, why);
	if (r == 0 && command->n_columns)
		r = table_check_wishes(command->columns, command->n_columns, &o->table, why);
	return r;
}

int command_line_read(const struct command *command, int argc, char **argv, void *options)
{
	struct verb_options *o = options;
	struct failure why = { 0 };
	int r = fill(command, argc, argv, options, &why);

	if (r > 0) {
		print_help(command);
		return 0;
	}
	if (r < 0) {
		log_error("%s (nbdctl %s --help tells more)", why.text, command->verb);
		return EXIT_USAGE;
	}
	if (places_find(o->exports, o->runtime, &o->places, &why) < 0) {
		log_error("%s", why.text);
		return 1;
	}
	return -1;
}

void verb_options_clear(struct verb_options *o)
{
	places_clear(&o->places);
}

int command_run(const struct command *command, int argc, char **argv, void *options,
                int (*run)(const void *options, struct failure *why))
{
	struct failure why = { 0 };
	int code = command_line_read(command, argc, argv, options);

	if (code < 0) {
		code = 0;
		if (run(options, &why) < 0) {
			log_error("%s", why.text);
			code = why.code == EINVAL || why.code == ERANGE ? EXIT_USAGE : 1;
		}
		if (fflush(stdout) != 0 && code == 0) {
			log_error("cannot write to standard output: %s", strerror(errno));
			code = 1;
		}
	}
	verb_options_clear(options);
	return code;
}
