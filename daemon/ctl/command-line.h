/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command lines of the verbs: a table with a row per option, one reader for all, and
 * --help made from the same rows.  (`nbdctl serve` has a reader of its own: serve-options.h.)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"
#include "ctl/places.h"
#include "ctl/table.h"

/* What every verb takes; the first member of a verb's own options.  Strings are argv's. */
struct verb_options {
	const char *exports;            /* --exports */
	const char *runtime;            /* --runtime */
	struct table_wishes table;      /* of verbs with columns */
	struct places places;           /* made from the first two */
	char **words;                   /* the arguments that are no options */
	size_t n_words;
};

/* `parse` gets a pointer to the member at `offset`; "" for an optional value left out. */
struct verb_option {
	char letter;                    /* 0 without */
	const char *name;
	const char *value;              /* what it is called; "[=N]" where optional; NULL: none */
	int (*parse)(const char *value, void *into, struct failure *why);
	size_t offset;                  /* inside the verb's own options */
	const char *help;               /* lines end with \n */
};

struct command {
	const char *verb;
	const char *arguments;          /* "LABEL DEVICE" */
	const char *about;              /* paragraphs; ends with \n */
	size_t min_words, max_words;
	const struct verb_option *options;
	size_t n_options;
	const struct column *columns;   /* of a listing verb: adds --json, -o and --noheadings */
	size_t n_columns;
};

/*
 * Fills `options`, whose first member is a struct verb_options.  -1 to go on; else what to
 * exit with, since --help was printed, or what is wrong was.
 */
int command_line_read(const struct command *command, int argc, char **argv, void *options);

/*
 * The whole of a verb: reads the command line, calls `run`, and tells what went wrong.  Returns
 * what to exit with.  A failure with EINVAL or ERANGE is one of the words that were given.
 */
int command_run(const struct command *command, int argc, char **argv, void *options,
                int (*run)(const void *options, struct failure *why));

/* Frees what command_line_read() has made. */
void verb_options_clear(struct verb_options *o);

/* Parsers for rows, besides base/settings.h's. */
int option_flag(const char *value, void *boolean, struct failure *why);
int option_text(const char *value, void *char_pointer, struct failure *why);  /* borrowed */
