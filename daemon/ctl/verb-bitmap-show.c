/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl bitmap show: one bitmap: all about it, its extents, or a picture.
 */
#include "ctl/verb-bitmap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/attr.h"
#include "base/text.h"
#include "ctl/bitmap-map.h"
#include "ctl/command-line.h"

enum { START, LENGTH };

const struct column extent_columns[EXTENT_COLUMNS_N] = {
	[START] = { "START", COLUMN_NUMBER, false, "bytes" },
	[LENGTH] = { "LENGTH", COLUMN_NUMBER, false, "bytes" },
};

struct show_options {
	struct verb_options common;
	bool extents, map, ascii;
};

static const struct verb_option options[] = {
	{ 0, "extents", NULL, option_flag, offsetof(struct show_options, extents),
	  "print the stretches that count as changed, in bytes\n" },
	{ 0, "map", NULL, option_flag, offsetof(struct show_options, map),
	  "print a picture: each character is a part of the device,\n"
	  "the higher the more of it counts as changed\n" },
	{ 0, "ascii", NULL, option_flag, offsetof(struct show_options, ascii),
	  "draw it without block characters: . : - = + * % @ #\n" },
};

static const struct command command = {
	.verb = "bitmap show",
	.arguments = "LABEL NAME",
	.about = "Show all about one bitmap or checkpoint.\n",
	.min_words = 2,
	.max_words = 2,
	.options = options,
	.n_options = ARRAY_LEN(options),
	.columns = bitmap_columns,
	.n_columns = BITMAP_COLUMNS_N,
};

/* --- extents -------------------------------------------------------------- */

static void add_extent(void *table, uint64_t start, uint64_t length)
{
	table_row(table);
	table_set_number(table, START, start);
	table_set_number(table, LENGTH, length);
}

int bitmap_print_extents(sd_bus *bus, const char *label, const char *name, const char *until,
                         const struct table_wishes *wishes, struct failure *why)
{
	struct table *t;
	int r = table_new("extents", extent_columns, EXTENT_COLUMNS_N, wishes, &t, why);

	if (r < 0)
		return r;
	r = bitmap_extents(bus, label, name, until, add_extent, t, why);
	if (r == 0)
		r = table_print(t, why);
	table_free(t);
	return r;
}

/* --- the picture ---------------------------------------------------------- */

static uint64_t sum(const uint64_t *cells, uint32_t n)
{
	uint64_t all = 0;

	for (uint32_t i = 0; i < n; i++)
		all += cells[i];
	return all;
}

static int show_map(sd_bus *bus, const char *label, const char *name, bool ascii,
                    struct failure *why)
{
	uint32_t width = bitmap_map_width();
	AUTO_FREE uint64_t *cells = calloc(width, sizeof *cells);
	char dirty[16], whole[16], each[16];
	uint64_t size = 0;
	int r;

	if (!cells)
		return fail(why, ENOMEM, "cannot draw");
	r = bitmap_map(bus, label, name, width, cells, &size, why);
	if (r < 0)
		return r;
	format_size(sum(cells, width), dirty, sizeof dirty);
	format_size(size, whole, sizeof whole);
	format_size(size / width, each, sizeof each);
	(void) printf("%s of %s dirty; a character is %s\n", dirty, whole, each);
	bitmap_map_draw(stdout, cells, width, size, ascii || !bitmap_map_blocks());
	return 0;
}

/* --- all about it --------------------------------------------------------- */

static int show_row(sd_bus *bus, const char *label, const char *name,
                    const struct table_wishes *wishes, struct failure *why)
{
	struct bitmap_row row;
	struct table *t;
	int r = bitmap_find(bus, label, name, &row, why);

	if (r < 0)
		return r;
	r = table_new("bitmaps", bitmap_columns, BITMAP_COLUMNS_N, wishes, &t, why);
	if (r == 0) {
		bitmap_table_row(t, label, &row);
		r = table_print_upright(t, why);
		table_free(t);
	}
	bitmap_row_clear(&row);
	return r;
}

static int show(const void *options_read, struct failure *why)
{
	const struct show_options *o = options_read;
	const char *label = o->common.words[0], *name = o->common.words[1];
	AUTO_BUS *bus = NULL;
	int r;

	if (o->extents && o->map)
		return fail_plain(why, EINVAL, "--extents or --map, not both");
	if ((o->extents || o->map) && o->common.table.columns)
		return fail_plain(why, EINVAL, "--output goes with neither --extents nor --map");
	if (o->map && o->common.table.json)
		return fail_plain(why, EINVAL, "a picture is not for programs: use --extents --json");
	r = bitmap_connect(&o->common.places, label, &bus, why);
	if (r < 0)
		return r;
	if (o->extents)
		return bitmap_print_extents(bus, label, name, "", &o->common.table, why);
	if (o->map)
		return show_map(bus, label, name, o->ascii, why);
	return show_row(bus, label, name, &o->common.table, why);
}

int bitmap_verb_show(int argc, char **argv)
{
	struct show_options o = { .map = false };

	return command_run(&command, argc, argv, &o, show);
}
