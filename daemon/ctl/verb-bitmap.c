/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl bitmap: the table of its verbs, and those that change bitmaps.
 */
#include "ctl/verb-bitmap.h"

#include <stdio.h>

#include "base/attr.h"
#include "base/bitmap-settings.h"
#include "ctl/command-line.h"
#include "ctl/verb-group.h"
#include "ctl/verbs.h"

#define MANY 1000u

struct edit_options {
	struct verb_options common;
	uint64_t granularity;
	bool disabled, force;
};

#define FORCE \
	{ 0, "force", NULL, option_flag, offsetof(struct edit_options, force), \
	  "close the clients that have selected it first\n" }

static const struct verb_option add_options[] = {
	{ 0, "granularity", "SIZE", setting_bitmap_granularity,
	  offsetof(struct edit_options, granularity),
	  "bytes that a bit stands for: 4K to 16M; all bitmaps of an\n"
	  "export have the same (BitmapGranularity=, 64K)\n" },
	{ 0, "disabled", NULL, option_flag, offsetof(struct edit_options, disabled),
	  "do not record yet\n" },
};

static const struct verb_option force_options[] = { FORCE };

/* Each of the names in turn; `done`: what is said of it. */
static int edit_each(const struct edit_options *o, const char *method, const char *done,
                     struct failure *why)
{
	const char *label = o->common.words[0];
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(&o->common.places, label, &bus, why);

	for (size_t i = 1; r == 0 && i < o->common.n_words; i++) {
		const struct bitmap_edit edit = {
			.method = method,
			.name = o->common.words[i],
			.granularity = o->granularity,
			.disabled = o->disabled,
			.force = o->force,
		};

		r = bitmap_edit(bus, label, &edit, why);
		if (r == 0)
			(void) printf("%s bitmap %s of %s\n", done, edit.name, label);
	}
	return r;
}

#define EACH(verb_name, word, method_name, done, its_options, text)           \
	static const struct command word##_command = {                        \
		.verb = "bitmap " verb_name,                                  \
		.arguments = "LABEL NAME...",                                 \
		.about = text,                                                \
		.min_words = 2,                                               \
		.max_words = MANY,                                            \
		.options = its_options,                                       \
		.n_options = ARRAY_LEN(its_options),                          \
	};                                                                    \
	static int run_##word(const void *options, struct failure *why)       \
	{                                                                     \
		return edit_each(options, method_name, done, why);            \
	}                                                                     \
	int bitmap_verb_##word(int argc, char **argv)                         \
	{                                                                     \
		struct edit_options o = { .force = false };                   \
                                                                              \
		return command_run(&word##_command, argc, argv, &o, run_##word); \
	}

EACH("add", add, "Add", "added", add_options,
     "Add dirty bitmaps to an export: each records from here on what clients change.\n"
     "It is kept through restarts and crashes.  Clients that connect from now on see it as\n"
     "qemu:dirty-bitmap:NAME.\n")
EACH("clear", clear, "Clear", "cleared", force_options,
     "Begin anew: the bitmap is clean, and records from here on.  Also ends the states\n"
     "gap and lost.\n")
EACH("enable", enable, "Enable", "enabled", force_options,
     "Let a bitmap that was disabled record again.  If the device was changed meanwhile, it\n"
     "has a gap.\n")
EACH("disable", disable, "Disable", "disabled", force_options,
     "Let a bitmap show what it has recorded until now, and record no more.\n")
EACH("remove", remove, "Remove", "removed", force_options,
     "Remove bitmaps, or checkpoints.\n")

/* --- rename, merge -------------------------------------------------------- */

static const struct command rename_command = {
	.verb = "bitmap rename",
	.arguments = "LABEL NAME NEW-NAME",
	.about = "Give a bitmap another name.\n",
	.min_words = 3,
	.max_words = 3,
	.options = force_options,
	.n_options = ARRAY_LEN(force_options),
};

static int run_rename(const void *options, struct failure *why)
{
	const struct edit_options *o = options;
	const char *label = o->common.words[0];
	const struct bitmap_edit edit = {
		.method = "Rename",
		.name = o->common.words[1],
		.other = o->common.words[2],
		.force = o->force,
	};
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(&o->common.places, label, &bus, why);

	if (r == 0)
		r = bitmap_edit(bus, label, &edit, why);
	if (r == 0)
		(void) printf("renamed bitmap %s of %s to %s\n", edit.name, label, edit.other);
	return r;
}

int bitmap_verb_rename(int argc, char **argv)
{
	struct edit_options o = { .force = false };

	return command_run(&rename_command, argc, argv, &o, run_rename);
}

static const struct command merge_command = {
	.verb = "bitmap merge",
	.arguments = "LABEL NAME FROM...",
	.about = "Let the bitmap NAME show what the others show now, too.\n",
	.min_words = 3,
	.max_words = 2 + BITMAP_NAMES_MAX,
	.options = force_options,
	.n_options = ARRAY_LEN(force_options),
};

static int run_merge(const void *options, struct failure *why)
{
	const struct edit_options *o = options;
	const char *label = o->common.words[0];
	const struct bitmap_edit edit = {
		.method = "Merge",
		.name = o->common.words[1],
		.sources = o->common.words + 2,         /* argv ends with NULL */
		.force = o->force,
	};
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(&o->common.places, label, &bus, why);

	if (r == 0)
		r = bitmap_edit(bus, label, &edit, why);
	if (r == 0)
		(void) printf("merged %zu bitmap%s of %s into %s\n", o->common.n_words - 2,
		              o->common.n_words == 3 ? "" : "s", label, edit.name);
	return r;
}

int bitmap_verb_merge(int argc, char **argv)
{
	struct edit_options o = { .force = false };

	return command_run(&merge_command, argc, argv, &o, run_merge);
}

/* --- the table ------------------------------------------------------------ */

static const struct group_verb verbs[] = {
	{ "add", "record what clients change, from here on", bitmap_verb_add },
	{ "list", "list the bitmaps of one export, or of all", bitmap_verb_list },
	{ "show", "show one: its state, its extents, a picture", bitmap_verb_show },
	{ "clear", "begin anew", bitmap_verb_clear },
	{ "enable", "record again", bitmap_verb_enable },
	{ "disable", "record no more", bitmap_verb_disable },
	{ "remove", "remove some", bitmap_verb_remove },
	{ "rename", "give one another name", bitmap_verb_rename },
	{ "merge", "add to one what others show", bitmap_verb_merge },
	{ "check", "check a file of bitmaps, and print what it holds", bitmap_verb_check },
};

static const struct verb_group group = {
	.name = "bitmap",
	.about = "Dirty bitmaps: which parts of an export's device clients have changed since when.\n",
	.verbs = verbs,
	.n = ARRAY_LEN(verbs),
};

int verb_bitmap(int argc, char **argv)
{
	return verb_group_run(&group, argc, argv);
}
