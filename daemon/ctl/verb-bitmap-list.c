/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl bitmap list: the bitmaps of one export, or of all that run.
 */
#include "ctl/verb-bitmap.h"

#include <errno.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/command-line.h"
#include "ctl/files.h"
#include "ctl/running.h"

enum { EXPORT, NAME, STATE, DIRTY, SIZE, GRANULARITY, SINCE, CLIENTS, REASON, CREATED, CHECKPOINT,
       SHARE };

const struct column bitmap_columns[BITMAP_COLUMNS_N] = {
	[EXPORT] = { "EXPORT", COLUMN_TEXT, false, "its label" },
	[NAME] = { "NAME", COLUMN_TEXT, false, "for clients: qemu:dirty-bitmap:NAME" },
	[STATE] = { "STATE", COLUMN_TEXT, false, "recording, disabled, frozen, gap, lost" },
	[DIRTY] = { "DIRTY", COLUMN_SIZE, false, "bytes that count as changed" },
	[SIZE] = { "SIZE", COLUMN_SIZE, false, "of the device" },
	[GRANULARITY] = { "GRANULARITY", COLUMN_SIZE, false, "bytes that a bit stands for" },
	[SINCE] = { "SINCE", COLUMN_TIME, false, "when it came into its state" },
	[CLIENTS] = { "CLIENTS", COLUMN_NUMBER, false, "that have selected it" },
	[REASON] = { "REASON", COLUMN_TEXT, false, "of the state" },
	[CREATED] = { "CREATED", COLUMN_TIME, true, "when it was made" },
	[CHECKPOINT] = { "CHECKPOINT", COLUMN_BOOL, true, "whether it was made as one" },
	[SHARE] = { "PERCENT", COLUMN_NUMBER, true, "of the device that count as changed" },
};

static const struct command command = {
	.verb = "bitmap list",
	.arguments = "[LABEL]",
	.about = "List the dirty bitmaps of an export, or of all exports that run.\n",
	.max_words = 1,
	.columns = bitmap_columns,
	.n_columns = BITMAP_COLUMNS_N,
};

void bitmap_table_row(struct table *t, const char *label, const struct bitmap_row *row)
{
	table_row(t);
	table_set_text(t, EXPORT, label);
	table_set_text(t, NAME, row->name);
	table_set_text(t, STATE, row->state);
	table_set_number(t, DIRTY, row->dirty);
	table_set_number(t, SIZE, row->size);
	table_set_number(t, GRANULARITY, row->granularity);
	table_set_number(t, SINCE, row->since);
	table_set_number(t, CLIENTS, row->clients);
	if (row->reason && *row->reason)
		table_set_text(t, REASON, row->reason);
	table_set_number(t, CREATED, row->created);
	table_set_bool(t, CHECKPOINT, row->checkpoint);
	if (row->size)
		table_set_number(t, SHARE, (uint64_t) ((__uint128_t) row->dirty * 100 / row->size));
}

static int add_rows(struct table *t, sd_bus *bus, const char *label, struct failure *why)
{
	struct bitmap_row *rows;
	size_t n;
	int r = bitmap_list(bus, label, &rows, &n, why);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		bitmap_table_row(t, label, &rows[i]);
	bitmap_rows_free(rows, n);
	return 0;
}

static int add_one(struct table *t, const struct places *p, const char *label,
                   struct failure *why)
{
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(p, label, &bus, why);

	return r < 0 ? r : add_rows(t, bus, label, why);
}

/* None is started for this.  How many did not tell. */
static size_t add_running(struct table *t, const struct places *p, const struct files *files)
{
	size_t n_silent = 0;

	for (size_t i = 0; i < files->n_good; i++) {
		const char *label = files->good[i].label;
		struct failure why = { 0 };
		AUTO_BUS *bus = NULL;
		int r = running_connect(p, label, &bus, &why);

		if (r == -ENOTCONN)
			continue;
		if (r == 0)
			r = add_rows(t, bus, label, &why);
		if (r < 0) {
			log_error("%s", why.text);
			n_silent++;
		}
	}
	return n_silent;
}

static int add_all(struct table *t, const struct places *p, struct failure *why)
{
	struct files files;
	size_t n_silent;
	int r = files_read(p->exports, &files, why);

	if (r < 0)
		return r;
	n_silent = add_running(t, p, &files);
	files_clear(&files);
	if (n_silent == 0)
		return 0;
	return fail_plain(why, EIO, "%zu export%s not told", n_silent,
	                  n_silent == 1 ? " has" : "s have");
}

static int list(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct failure incomplete = { 0 };
	struct table *t;
	int r = table_new("bitmaps", bitmap_columns, BITMAP_COLUMNS_N, &o->table, &t, why);

	if (r < 0)
		return r;
	if (o->n_words)
		r = add_one(t, &o->places, o->words[0], why);
	else
		(void) add_all(t, &o->places, &incomplete);
	if (r == 0)
		r = table_print(t, why);
	table_free(t);
	if (r == 0 && incomplete.code) {
		*why = incomplete;
		r = -why->code;
	}
	return r;
}

int bitmap_verb_list(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, list);
}
