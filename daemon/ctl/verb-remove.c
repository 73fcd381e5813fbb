/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl remove: the opposite of add.  Clients are never cut off by surprise: while there are
 * some it refuses and names them, or drains if it is told to.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "ctl/activate.h"
#include "ctl/bitmap-purge.h"
#include "ctl/command-line.h"
#include "ctl/folder-lock.h"
#include "ctl/quiesce.h"
#include "ctl/running.h"
#include "ctl/strays.h"

struct remove_options {
	struct verb_options common;
	struct quiesce_options quiesce;
	bool purge;
};

static const struct verb_option options[] = {
	{ 0, "drain", "[=SECONDS]", quiesce_parse_drain, offsetof(struct remove_options, quiesce),
	  "let clients finish what is in flight, flush, and close\n"
	  "them first; not within SECONDS: stay as it is\n" },
	{ 0, "force", NULL, option_flag, offsetof(struct remove_options, quiesce.force),
	  "remove it under the clients that are connected; with\n"
	  "--drain=SECONDS only after these\n" },
	{ 0, "purge", NULL, option_flag, offsetof(struct remove_options, purge),
	  "remove its dirty bitmaps too, if it has any; else they stay,\n"
	  "for an export of that name and device\n" },
};

static const struct command command = {
	.verb = "remove",
	.arguments = "LABEL",
	.about =
"Stop an export and remove its file.  While clients are connected it refuses, and\n"
"names them.  The device is left as it is.\n",
	.min_words = 1,
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int fail_absent(const char *label, const char *path, struct failure *why)
{
	return fail_plain(why, ENOENT, "there is no export %s: no file %s", label, path);
}

/* What a removal that failed half-way has left is enough, too. */
static int check_exists(const struct places *p, const char *label, struct failure *why)
{
	AUTO_FREE char *path = places_file(p, label);
	struct stat st;

	if (!path)
		return fail(why, ENOMEM, "cannot look for %s", label);
	if (lstat(path, &st) < 0 && errno == ENOENT && !stray_exists(p, label))
		return fail_absent(label, path, why);
	return 0;
}

/* Somebody else may have done so before we had the lock. */
static int remove_file(const struct places *p, const char *label, struct failure *why)
{
	AUTO_FREE char *path = places_file(p, label);

	if (!path)
		return fail(why, ENOMEM, "cannot remove %s", label);
	if (unlink(path) == 0)
		return 0;
	if (errno != ENOENT)
		return fail(why, errno, "cannot remove %s", path);
	return stray_exists(p, label) ? 0 : fail_absent(label, path, why);
}

static int remove_locked(const struct remove_options *o, const char *label,
                         struct failure *why)
{
	const struct places *p = &o->common.places;
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	bool drained = false;
	int r = running_connect(p, label, &bus, &cause);

	if (r == -EACCES || (r < 0 && r != -ENOTCONN && r != -ENOENT && !o->quiesce.force))
		return fail_plain(why, -r, "%s", cause.text);
	r = bus ? quiesce(&o->quiesce, bus, label, p->of_units, &drained, why) : 0;
	if (r == 0)
		r = remove_file(p, label, why);
	if (r < 0 && drained)
		quiesce_undo(bus, label, why);
	return r;
}

/* What --purge can find later, when no file says any more where it was, is what is in its place. */
static void tell_bitmaps(const struct remove_options *o, const struct bitmap_file *file,
                         bool was_there)
{
	if (was_there && o->purge)
		(void) printf(", and its bitmaps");
	else if (was_there && file->elsewhere)
		(void) printf("; its bitmaps stay, to be removed by hand: %s", file->path);
	else if (was_there)
		(void) printf("; its bitmaps stay: %s (--purge removes them)", file->path);
	else if (o->purge && !file->guessed)
		(void) printf("; it had no bitmaps");
	if (o->purge && file->guessed)
		(void) printf("; its file could not be read, and what BitmapStore= may have kept "
		              "elsewhere stays");
	(void) printf("\n");
}

static int finish(const struct remove_options *o, const char *label,
                  const struct bitmap_file *file, struct failure *why)
{
	bool was_there = bitmap_file_is_there(file->path);

	if (was_there && o->purge && bitmap_file_remove(file->path, label, why) < 0)
		return fail_while(why, "%s is removed, but", label);
	bitmap_folder_remove(label);
	(void) printf("removed %s", label);
	tell_bitmaps(o, file, was_there);
	return 0;
}

static int remove_export(const struct remove_options *o, const char *label,
                         struct failure *why)
{
	const struct places *p = &o->common.places;
	struct bitmap_file bitmaps;
	AUTO_FD lock = -1;
	int r = folder_lock(p, &lock, why);

	if (r == 0)
		r = bitmap_file_of(p, label, &bitmaps, why);
	if (r == 0)
		r = remove_locked(o, label, why);
	if (r < 0)
		return r;
	/* Under the lock, or it would stop what somebody has added anew, and take its bitmaps. */
	r = deactivate(p, label, true, why);
	if (r < 0)
		return fail_while(why, "the file of %s is removed, but", label);
	stray_clear(p, label);
	return finish(o, label, &bitmaps, why);
}

/* The export was removed without --purge before, and nobody has added one of that label since.
 * `why` has the failure that holds if nothing is left of it. */
static int purge_left(const struct remove_options *o, const char *label, struct failure *why)
{
	struct failure absent = { 0 };
	struct bitmap_file bitmaps;
	AUTO_FD lock = -1;
	int r = bitmap_file_of(&o->common.places, label, &bitmaps, &absent);

	if (r < 0 || !bitmap_file_is_there(bitmaps.path))
		return -why->code;
	r = folder_lock(&o->common.places, &lock, why);
	if (r < 0)
		return r;
	if (check_exists(&o->common.places, label, &absent) == 0)
		return fail_plain(why, EEXIST, "%s has just been added", label);
	r = bitmap_file_remove(bitmaps.path, label, why);
	if (r < 0)
		return r;
	bitmap_folder_remove(label);
	(void) printf("removed the bitmaps of %s, which was removed before\n", label);
	return 0;
}

static int run(const void *options_read, struct failure *why)
{
	const struct remove_options *o = options_read;
	const char *label = o->common.words[0];
	int r;

	if (o->common.places.of_serve && !o->common.exports)
		return fail_plain(why, ENOTSUP, "`nbdctl serve` serves what it was started with");
	r = export_label_check(label, why);
	if (r == 0)
		r = check_exists(&o->common.places, label, why);
	if (r == -ENOENT && o->purge)
		return purge_left(o, label, why);
	return r < 0 ? r : remove_export(o, label, why);
}

int verb_remove(int argc, char **argv)
{
	struct remove_options o = { .purge = false };

	return command_run(&command, argc, argv, &o, run);
}
