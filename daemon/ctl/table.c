/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/table.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/attr.h"
#include "base/text.h"

#define CELL_SHOWN 400u                 /* bytes of a text for people */
#define MAX_COLUMNS 64u

struct table {
	const char *name;
	const struct column *columns;
	size_t n_columns;
	const struct table_wishes *wishes;
	size_t order[MAX_COLUMNS];              /* the columns to print */
	size_t n_order;
	char **cells;                           /* n_rows * n_columns; NULL where not set */
	size_t n_rows;
	bool no_memory;
};

static bool find_column(const struct column *columns, size_t n, const char *word, size_t len,
                        size_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (strlen(columns[i].name) == len &&
		    strncasecmp(columns[i].name, word, len) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

/* The sentence lists what there is. */
static int fail_column(const struct column *columns, size_t n, const char *word, size_t len,
                       struct failure *why)
{
	char names[FAILURE_TEXT_SIZE] = "";
	size_t at = 0;

	for (size_t i = 0; i < n && at < sizeof names; i++)
		at += (size_t) snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "",
		                        columns[i].name);
	return fail_plain(why, EINVAL, "--output: there is no column \"%.*s\"; there are %s",
	                  (int) (len < 64 ? len : 64), word, names);
}

/* Fills order[MAX_COLUMNS]. */
static int read_order(const struct column *columns, size_t n, const char *wish, size_t *order,
                      size_t *ret_n, struct failure *why)
{
	size_t n_order = 0;

	for (size_t i = 0; i < n && (!wish || *wish == '+'); i++)
		if (!columns[i].extra)
			order[n_order++] = i;
	if (wish && *wish == '+')
		wish++;
	while (wish) {
		size_t len = strcspn(wish, ",");

		if (n_order == MAX_COLUMNS)
			return fail_plain(why, EINVAL, "--output: too many columns");
		if (!find_column(columns, n, wish, len, &order[n_order]))
			return fail_column(columns, n, wish, len, why);
		n_order++;
		wish = wish[len] ? wish + len + 1 : NULL;
	}
	*ret_n = n_order;
	return 0;
}

int table_check_wishes(const struct column *columns, size_t n, const struct table_wishes *wishes,
                       struct failure *why)
{
	size_t order[MAX_COLUMNS];
	size_t n_order;

	return read_order(columns, n, wishes->columns, order, &n_order, why);
}

int table_new(const char *name, const struct column *columns, size_t n,
              const struct table_wishes *wishes, struct table **ret, struct failure *why)
{
	struct table *t = calloc(1, sizeof *t);
	int r;

	assert(n <= MAX_COLUMNS);
	if (!t)
		return fail(why, ENOMEM, "cannot make a table");
	*t = (struct table) { .name = name, .columns = columns, .n_columns = n, .wishes = wishes };
	r = read_order(columns, n, wishes->columns, t->order, &t->n_order, why);
	if (r < 0) {
		free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

/* --- filling -------------------------------------------------------------- */

void table_row(struct table *t)
{
	char **more = reallocarray(t->cells, (t->n_rows + 1) * t->n_columns, sizeof *more);

	if (!more) {
		t->no_memory = true;
		return;
	}
	t->cells = more;
	memset(t->cells + t->n_rows * t->n_columns, 0, t->n_columns * sizeof *more);
	t->n_rows++;
}

/* Takes over `text`. */
static void set_cell(struct table *t, size_t column, char *text)
{
	char **cell;

	assert(column < t->n_columns);
	if (!text || t->no_memory || t->n_rows == 0) {
		t->no_memory = true;
		free(text);
		return;
	}
	cell = &t->cells[(t->n_rows - 1) * t->n_columns + column];
	free(*cell);
	*cell = text;
}

/* Names of files may be any bytes. */
static char *text_for_programs(const char *text)
{
	size_t size = 3 * strlen(text) + 1;
	char *ret = malloc(size);

	if (ret)
		make_utf8(text, ret, size);
	return ret;
}

void table_set_text(struct table *t, size_t column, const char *text)
{
	char shown[CELL_SHOWN + 4];

	if (!text)
		return;
	if (t->wishes->json) {
		set_cell(t, column, text_for_programs(text));
		return;
	}
	printable(span_of(text), CELL_SHOWN, shown, sizeof shown);
	set_cell(t, column, strdup(shown));
}

static void print_quoted(FILE *out, const char *text, size_t len)
{
	(void) fputc('"', out);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char) text[i];

		if (c < 0x20)
			(void) fprintf(out, "\\u%04x", c);
		else
			(void) fprintf(out, "%s%c", c == '"' || c == '\\' ? "\\" : "", c);
	}
	(void) fputc('"', out);
}

/* libsmartcols 2.38 has no empty arrays, but lets numbers through as they are. */
static char *make_array(const char *lines)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	(void) fputc('[', out);
	while (*lines) {
		size_t len = strcspn(lines, "\n");

		print_quoted(out, lines, len);
		lines += len;
		if (*lines == '\n' && *++lines)
			(void) fputs(", ", out);
	}
	(void) fputc(']', out);
	if (fclose(out) != 0)
		free_pointer(&text);
	return text;
}

void table_set_list(struct table *t, size_t column, const char *lines)
{
	AUTO_FREE char *copy = NULL;

	if (t->wishes->json) {
		copy = text_for_programs(lines ? lines : "");
		set_cell(t, column, copy ? make_array(copy) : NULL);
		return;
	}
	if (!lines || !*lines)
		return;
	copy = strdup(lines);
	for (char *at = copy; at && *at; at++)
		if (*at == '\n')
			*at = ',';
	if (copy)
		table_set_text(t, column, copy);
	else
		t->no_memory = true;
}

void format_time(uint64_t usec, char *ret, size_t size)
{
	time_t seconds = (time_t) (usec / 1000000);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || strftime(ret, size, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		(void) snprintf(ret, size, "%" PRIu64, usec);
}

static void format_time_for_programs(uint64_t usec, char *ret, size_t size)
{
	time_t seconds = (time_t) (usec / 1000000);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || strftime(ret, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		(void) snprintf(ret, size, "%" PRIu64, usec);
}

void table_set_number(struct table *t, size_t column, uint64_t n)
{
	enum column_kind kind = t->columns[column].kind;
	char text[40];

	if (kind == COLUMN_TIME && t->wishes->json)
		format_time_for_programs(n, text, sizeof text);
	else if (kind == COLUMN_TIME)
		format_time(n, text, sizeof text);
	else if (kind == COLUMN_SIZE && !t->wishes->json)
		format_size(n, text, sizeof text);
	else
		(void) snprintf(text, sizeof text, "%" PRIu64, n);
	set_cell(t, column, strdup(text));
}

void table_set_bool(struct table *t, size_t column, bool value)
{
	set_cell(t, column, strdup(t->wishes->json ? (value ? "1" : "0") : value ? "yes" : "no"));
}

/* --- printing ------------------------------------------------------------- */

static int json_type(enum column_kind kind)
{
	switch (kind) {
	case COLUMN_NUMBER:
	case COLUMN_SIZE:
	case COLUMN_LIST:
		return SCOLS_JSON_NUMBER;
	case COLUMN_BOOL:
		return SCOLS_JSON_BOOLEAN_OPTIONAL;
	case COLUMN_TEXT:
	case COLUMN_TIME:
		break;
	}
	return SCOLS_JSON_STRING;
}

static bool add_column(struct libscols_table *out, const struct column *column)
{
	bool right = column->kind == COLUMN_NUMBER || column->kind == COLUMN_SIZE;
	struct libscols_column *made =
		scols_table_new_column(out, column->name, 0, right ? SCOLS_FL_RIGHT : 0);

	return made && scols_column_set_json_type(made, json_type(column->kind)) == 0;
}

static bool fill_row(struct libscols_table *out, const struct table *t, size_t row)
{
	struct libscols_line *line = scols_table_new_line(out, NULL);
	bool good = line != NULL;

	for (size_t i = 0; good && i < t->n_order; i++) {
		const char *cell = t->cells[row * t->n_columns + t->order[i]];

		if (!cell && !t->wishes->json)
			cell = "-";
		good = !cell || scols_line_set_data(line, i, cell) == 0;
	}
	return good;
}

static bool fill(struct libscols_table *out, const struct table *t)
{
	bool good = scols_table_set_name(out, t->name) == 0;

	for (size_t i = 0; good && i < t->n_order; i++)
		good = add_column(out, &t->columns[t->order[i]]);
	for (size_t row = 0; good && row < t->n_rows; row++)
		good = fill_row(out, t, row);
	return good;
}

/* "Label:  web1" and so on, for the first row. */
static bool fill_upright(struct libscols_table *out, const struct table *t)
{
	bool good = scols_table_new_column(out, "WHAT", 0, 0) &&
	            scols_table_new_column(out, "VALUE", 0, 0);

	for (size_t i = 0; good && i < t->n_order && t->n_rows > 0; i++) {
		const char *cell = t->cells[t->order[i]];
		struct libscols_line *line = scols_table_new_line(out, NULL);

		good = line && scols_line_set_data(line, 0, t->columns[t->order[i]].name) == 0 &&
		       scols_line_set_data(line, 1, cell ? cell : "-") == 0;
	}
	return good;
}

static int print_filled(struct table *t, bool upright, struct failure *why)
{
	struct libscols_table *out = scols_new_table();
	bool good = out && !t->no_memory;

	if (good && upright)
		good = fill_upright(out, t);
	else if (good)
		good = fill(out, t);
	if (!good) {
		scols_unref_table(out);
		return fail(why, ENOMEM, "cannot make a table");
	}
	(void) scols_table_enable_json(out, t->wishes->json);
	(void) scols_table_enable_noheadings(out, upright || t->wishes->no_headings);
	if (t->n_rows > 0 || t->wishes->json)
		(void) scols_print_table(out);
	scols_unref_table(out);
	if (fflush(stdout) != 0)
		return fail(why, errno, "cannot write to standard output");
	return 0;
}

int table_print(struct table *t, struct failure *why)
{
	return print_filled(t, false, why);
}

int table_print_upright(struct table *t, struct failure *why)
{
	return print_filled(t, !t->wishes->json, why);
}

void table_print_columns(const struct column *columns, size_t n)
{
	(void) printf("\nColumns (those with * only when asked for):\n");
	for (size_t i = 0; i < n; i++) {
		int first = (int) strcspn(columns[i].help, "\n");

		(void) printf("  %-16s%c %.*s\n", columns[i].name, columns[i].extra ? '*' : ' ',
		              first, columns[i].help);
		if (columns[i].help[first])
			(void) printf("  %-17s %s\n", "", columns[i].help + first + 1);
	}
}
