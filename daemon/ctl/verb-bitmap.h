/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of `nbdctl bitmap`, and what `nbdctl checkpoint` shares with them.
 */
#pragma once

#include <stdint.h>

#include "base/failure.h"
#include "ctl/bitmap-call.h"
#include "ctl/table.h"

int bitmap_verb_add(int argc, char **argv);
int bitmap_verb_check(int argc, char **argv);
int bitmap_verb_clear(int argc, char **argv);
int bitmap_verb_disable(int argc, char **argv);
int bitmap_verb_enable(int argc, char **argv);
int bitmap_verb_list(int argc, char **argv);
int bitmap_verb_merge(int argc, char **argv);
int bitmap_verb_remove(int argc, char **argv);
int bitmap_verb_rename(int argc, char **argv);
int bitmap_verb_show(int argc, char **argv);

/* A table of bitmaps: columns, and a row of it. */
#define BITMAP_COLUMNS_N 12u
extern const struct column bitmap_columns[BITMAP_COLUMNS_N];
void bitmap_table_row(struct table *t, const char *label, const struct bitmap_row *row);

/* A table of extents: columns, and all of a bitmap (until a checkpoint, or ""). */
#define EXTENT_COLUMNS_N 2u
extern const struct column extent_columns[EXTENT_COLUMNS_N];
int bitmap_print_extents(sd_bus *bus, const char *label, const char *name, const char *until,
                         const struct table_wishes *wishes, struct failure *why);
