/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables for people and, as JSON, for programs; a small wrapper of libsmartcols, and the only
 * file that knows it.
 *
 * A cell that was not set is "-", and null in JSON.  Text is made printable for people;
 * JSON has it as it is, as far as it is UTF-8.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"

enum column_kind {
	COLUMN_TEXT,
	COLUMN_LIST,                    /* words; an array in JSON */
	COLUMN_NUMBER,
	COLUMN_SIZE,                    /* bytes: "64 MiB", a number in JSON */
	COLUMN_TIME,                    /* microseconds since 1970; ISO 8601 in UTC in JSON */
	COLUMN_BOOL,                    /* yes or no */
};

struct column {
	const char *name;               /* the heading; in lower case JSON's key */
	enum column_kind kind;
	bool extra;                     /* shown only when asked for */
	const char *help;
};

/* The options --json, -o and --noheadings. */
struct table_wishes {
	bool json;
	bool no_headings;
	const char *columns;            /* "A,B" or "+C"; NULL for the usual ones */
};

struct table;

/* -EINVAL and a sentence for columns that there are not. */
int table_check_wishes(const struct column *columns, size_t n, const struct table_wishes *wishes,
                       struct failure *why);

/* `name`: JSON's key of the whole.  All are borrowed for the table's life. */
int table_new(const char *name, const struct column *columns, size_t n,
              const struct table_wishes *wishes, struct table **ret, struct failure *why);
void table_free(struct table *t);

/* Begins a row; the setters fill it.  Failures are kept for table_print(). */
void table_row(struct table *t);
void table_set_text(struct table *t, size_t column, const char *text);
void table_set_number(struct table *t, size_t column, uint64_t n);      /* SIZE, TIME too */
void table_set_bool(struct table *t, size_t column, bool value);
void table_set_list(struct table *t, size_t column, const char *lines); /* by \n */

/* On stdout. */
int table_print(struct table *t, struct failure *why);

/* The first row with one line for each column; JSON as ever. */
int table_print_upright(struct table *t, struct failure *why);

/* For --help. */
void table_print_columns(const struct column *columns, size_t n);

/* A time for people, in local time: "2026-11-24 00:32:40". */
void format_time(uint64_t usec, char *ret, size_t size);
