/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl checkpoint: moments that changes are counted from.
 *
 * Of several exports at once: all stop writing before any makes its checkpoint, so that what a
 * program wrote in order to one and then to the other is not torn apart.  Each makes it durable and
 * hidden; then one write (base/group-file.h) decides for all, and whoever dies finds out later.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/group-file.h"
#include "base/log.h"
#include "ctl/command-line.h"
#include "ctl/verb-bitmap.h"
#include "ctl/verb-group.h"

#define EXPORTS_MAX 64u

/* --- create --------------------------------------------------------------- */

static const struct command create_command = {
	.verb = "checkpoint create",
	.arguments = "NAME LABEL[,LABEL...]",
	.about =
"Make a checkpoint: a moment that changes are counted from.  Of several exports it is\n"
"the same moment: all or none of them have it afterwards.\n",
	.min_words = 2,
	.max_words = 2,
};

struct members {
	char *words;                    /* the labels' memory */
	size_t n;
	struct {
		const char *label;
		sd_bus *bus;
	} of[EXPORTS_MAX];
};

static int split_labels(const char *text, struct members *all, struct failure *why)
{
	char *rest, *label;

	all->words = strdup(text);
	if (!all->words)
		return fail(why, ENOMEM, "cannot keep the labels");
	rest = all->words;
	while ((label = strsep(&rest, ","))) {
		if (!*label)
			return fail_plain(why, EINVAL, "\"%.200s\" has an empty label in it", text);
		if (all->n == EXPORTS_MAX)
			return fail_plain(why, EINVAL, "more than %u exports", EXPORTS_MAX);
		for (size_t i = 0; i < all->n; i++)
			if (strcmp(all->of[i].label, label) == 0)
				return fail_plain(why, EINVAL, "%s is there twice", label);
		all->of[all->n++].label = label;
	}
	return 0;
}

static void close_members(struct members *all)
{
	for (size_t i = 0; i < all->n; i++)
		control_close(&all->of[i].bus);
	free(all->words);
}

/* One that lets go by itself meanwhile has said so to whoever made its checkpoint. */
static void release_all(const struct members *all, size_t n_held)
{
	for (size_t i = 0; i < n_held; i++) {
		struct failure ignored = { 0 };

		(void) bitmap_release(all->of[i].bus, all->of[i].label, &ignored);
	}
}

static int hold_all(const struct members *all, struct failure *why)
{
	for (size_t i = 0; i < all->n; i++) {
		int r = bitmap_hold(all->of[i].bus, all->of[i].label, why);

		if (r < 0) {
			release_all(all, i);
			return r;
		}
	}
	return 0;
}

static int make_one(const struct members *all, size_t i, const char *name, const struct group *group,
                    struct failure *why)
{
	const struct bitmap_edit edit = {
		.method = "Checkpoint", .name = name, .held = group, .group = group ? group->id : NULL,
	};

	return bitmap_edit(all->of[i].bus, all->of[i].label, &edit, why);
}

/* Each looks at what was decided.  One that has ended meanwhile does so when it starts again. */
static size_t resolve_all(const struct members *all, size_t n, bool made)
{
	size_t n_told = 0;

	for (size_t i = 0; i < n; i++) {
		struct failure why = { 0 };

		if (bitmap_resolve(all->of[i].bus, all->of[i].label, &why) == 0)
			n_told++;
		else if (made)
			log_warning("%s: it shows the checkpoint as soon as it can: %s", all->of[i].label,
			            why.text);
	}
	return n_told;
}

/* All have theirs, hidden, and none lets a write through: one word in a file makes them all. */
static int make_group(const struct members *all, const char *name, struct group *group,
                      struct failure *why)
{
	size_t n_made = 0;
	int r = 0;

	while (r == 0 && n_made < all->n) {
		r = make_one(all, n_made, name, group, why);
		n_made += r == 0;
	}
	if (r < 0) {
		group_end(group, true);
		(void) resolve_all(all, n_made, false);
		return fail_while(why, "no checkpoint was made");
	}
	r = group_commit(group, why);
	if (r < 0) {
		group_end(group, false);
		return fail_while(why, "whether checkpoints were made is to be seen in the exports");
	}
	/* Who could not be told needs the file. */
	group_end(group, resolve_all(all, all->n, true) == all->n);
	return 0;
}

static int make_all(const struct members *all, const char *name, struct failure *why)
{
	struct group group;
	int r = group_begin(&group, why);

	if (r < 0)
		return r;
	r = hold_all(all, why);
	if (r < 0) {
		group_end(&group, true);
		return fail_while(why, "no checkpoint was made");
	}
	r = make_group(all, name, &group, why);
	release_all(all, all->n);
	return r;
}

static int create(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *name = o->words[0];
	struct members all = { .n = 0 };
	int r = split_labels(o->words[1], &all, why);

	for (size_t i = 0; r == 0 && i < all.n; i++)
		r = bitmap_connect(&o->places, all.of[i].label, &all.of[i].bus, why);
	if (r == 0)
		r = all.n == 1 ? make_one(&all, 0, name, NULL, why) : make_all(&all, name, why);
	for (size_t i = 0; r == 0 && i < all.n; i++)
		(void) printf("made checkpoint %s of %s\n", name, all.of[i].label);
	close_members(&all);
	return r;
}

static int verb_create(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&create_command, argc, argv, &o, create);
}

/* --- list ----------------------------------------------------------------- */

static const struct command list_command = {
	.verb = "checkpoint list",
	.arguments = "LABEL",
	.about = "List the checkpoints of an export, and how much has changed since each.\n",
	.min_words = 1,
	.max_words = 1,
	.columns = bitmap_columns,
	.n_columns = BITMAP_COLUMNS_N,
};

static int add_checkpoints(struct table *t, const struct places *p, const char *label,
                           struct failure *why)
{
	struct bitmap_row *rows;
	AUTO_BUS *bus = NULL;
	size_t n;
	int r = bitmap_connect(p, label, &bus, why);

	if (r == 0)
		r = bitmap_list(bus, label, &rows, &n, why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (rows[i].checkpoint)
			bitmap_table_row(t, label, &rows[i]);
	bitmap_rows_free(rows, n);
	return 0;
}

static int list(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct table *t;
	int r = table_new("checkpoints", bitmap_columns, BITMAP_COLUMNS_N, &o->table, &t, why);

	if (r < 0)
		return r;
	r = add_checkpoints(t, &o->places, o->words[0], why);
	if (r == 0)
		r = table_print(t, why);
	table_free(t);
	return r;
}

static int verb_list_checkpoints(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&list_command, argc, argv, &o, list);
}

/* --- delete --------------------------------------------------------------- */

struct delete_options {
	struct verb_options common;
	bool force;
};

static const struct verb_option delete_options[] = {
	{ 0, "force", NULL, option_flag, offsetof(struct delete_options, force),
	  "close the clients that have selected it first\n" },
};

static const struct command delete_command = {
	.verb = "checkpoint delete",
	.arguments = "LABEL NAME...",
	.about = "Delete checkpoints.  What others show stays as it is.\n",
	.min_words = 2,
	.max_words = 100,
	.options = delete_options,
	.n_options = ARRAY_LEN(delete_options),
};

static int delete_one(sd_bus *bus, const char *label, const char *name, bool force,
                      struct failure *why)
{
	const struct bitmap_edit edit = { .method = "Remove", .name = name, .force = force };
	struct bitmap_row row;
	bool checkpoint;
	int r = bitmap_find(bus, label, name, &row, why);

	if (r < 0)
		return r;
	checkpoint = row.checkpoint;
	bitmap_row_clear(&row);
	if (!checkpoint)
		return fail_plain(why, EMEDIUMTYPE, "%s: %.200s is a bitmap and no checkpoint (nbdctl "
		                  "bitmap remove)", label, name);
	r = bitmap_edit(bus, label, &edit, why);
	if (r == 0)
		(void) printf("deleted checkpoint %s of %s\n", name, label);
	return r;
}

static int delete(const void *options, struct failure *why)
{
	const struct delete_options *o = options;
	const char *label = o->common.words[0];
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(&o->common.places, label, &bus, why);

	for (size_t i = 1; r == 0 && i < o->common.n_words; i++)
		r = delete_one(bus, label, o->common.words[i], o->force, why);
	return r;
}

static int verb_delete(int argc, char **argv)
{
	struct delete_options o = { .force = false };

	return command_run(&delete_command, argc, argv, &o, delete);
}

/* --- delta ---------------------------------------------------------------- */

struct delta_options {
	struct verb_options common;
	const char *bitmap;
};

static const struct verb_option delta_options[] = {
	{ 0, "bitmap", "NAME", option_text, offsetof(struct delta_options, bitmap),
	  "print nothing: keep it as the frozen bitmap NAME, for clients\n" },
};

static const struct command delta_command = {
	.verb = "checkpoint delta",
	.arguments = "LABEL A [B]",
	.about =
"Print what has changed from checkpoint A to checkpoint B, or until now: stretches, in\n"
"bytes.\n",
	.min_words = 2,
	.max_words = 3,
	.options = delta_options,
	.n_options = ARRAY_LEN(delta_options),
	.columns = extent_columns,
	.n_columns = EXTENT_COLUMNS_N,
};

static int delta(const void *options, struct failure *why)
{
	const struct delta_options *o = options;
	char **words = o->common.words;         /* argv ends with NULL */
	const char *until = words[2] ? words[2] : "";
	AUTO_BUS *bus = NULL;
	int r = bitmap_connect(&o->common.places, words[0], &bus, why);

	if (r < 0)
		return r;
	if (!o->bitmap)
		return bitmap_print_extents(bus, words[0], words[1], until, &o->common.table, why);
	r = bitmap_edit(bus, words[0], &(struct bitmap_edit) { .method = "Delta", .name = o->bitmap,
	                .sources = words + 1 }, why);
	if (r == 0)
		(void) printf("made bitmap %s of %s\n", o->bitmap, words[0]);
	return r;
}

static int verb_delta(int argc, char **argv)
{
	struct delta_options o = { .bitmap = NULL };

	return command_run(&delta_command, argc, argv, &o, delta);
}

/* --- the table ------------------------------------------------------------ */

static const struct group_verb verbs[] = {
	{ "create", "make one, of several exports at the same moment", verb_create },
	{ "list", "list those of an export", verb_list_checkpoints },
	{ "delete", "delete some", verb_delete },
	{ "delta", "print what has changed since one", verb_delta },
};

static const struct verb_group group = {
	.name = "checkpoint",
	.about = "Checkpoints: moments that changes are counted from, as backups need them.\n",
	.verbs = verbs,
	.n = ARRAY_LEN(verbs),
};

int verb_checkpoint(int argc, char **argv)
{
	return verb_group_run(&group, argc, argv);
}
