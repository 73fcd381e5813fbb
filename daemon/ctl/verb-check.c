/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl check: reads all files as the daemons would.  Opens no device, since even that may
 * wake others; changes nothing.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/negotiator-settings.h"
#include "base/paths.h"
#include "ctl/command-line.h"
#include "ctl/device-check.h"
#include "ctl/files.h"

#define WORDS_MAX 10000u

enum { LABEL, FILE_PATH, RESULT, PROBLEM };

static const struct column columns[] = {
	[LABEL] = { "LABEL", COLUMN_TEXT, false, "of the export" },
	[FILE_PATH] = { "FILE", COLUMN_TEXT, true, "its path" },
	[RESULT] = { "RESULT", COLUMN_TEXT, false, "good, no-device or bad" },
	[PROBLEM] = { "PROBLEM", COLUMN_TEXT, false, "a sentence" },
};

static const struct command command = {
	.verb = "check",
	.arguments = "[LABEL...]",
	.about =
"Check the exports' files, and negotiator.conf, without touching anything.  Exit\n"
"status 1 if one is bad; a device that is not there yet is no fault of its file.\n",
	.max_words = WORDS_MAX,
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

static void add_row(struct table *t, const char *label, const char *file, const char *result,
                    const char *problem)
{
	table_row(t);
	table_set_text(t, LABEL, label);
	table_set_text(t, FILE_PATH, file);
	table_set_text(t, RESULT, result);
	table_set_text(t, PROBLEM, problem);
}

/* What reading the file alone does not show. */
static int check_settings(const struct places *p, const struct files *files,
                          const struct export_settings *s, struct failure *why)
{
	struct stat st;
	int r;

	if (s->shared && !s->read_only)
		return fail_plain(why, EINVAL, "Shared=yes goes with ReadOnly=yes only");
	if (stat(s->device, &st) < 0)
		return fail(why, errno, "%s", s->device);
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return fail_plain(why, ENOTBLK, "%s is neither a block device nor a regular file",
		                  s->device);
	r = p->of_units ? device_path_check(s->device, why) : 0;
	return r < 0 ? r : files_check_beside(files, s, why);
}

/* Whether it is bad. */
static bool check_good(struct table *t, const struct verb_options *o, const struct files *files,
                       const struct export_settings *s)
{
	AUTO_FREE char *file = places_file(&o->places, s->label);
	struct failure why = { 0 };
	int r = check_settings(&o->places, files, s, &why);
	bool absent = r == -ENOENT || r == -ENXIO;

	add_row(t, s->label, file, absent ? "no-device" : r < 0 ? "bad" : "good",
	        r < 0 ? why.text : NULL);
	return r < 0 && !absent;
}

/* Whether `label`'s is among the files that were asked for. */
static bool is_wanted(const struct verb_options *o, const char *label)
{
	for (size_t i = 0; i < o->n_words; i++)
		if (label && strcmp(o->words[i], label) == 0)
			return true;
	return o->n_words == 0;
}

static size_t check_asked_for(struct table *t, const struct verb_options *o,
                              const struct files *files)
{
	size_t n_bad = 0;

	for (size_t i = 0; i < o->n_words; i++) {
		if (files_find(files, o->words[i]) || files_find_bad(files, o->words[i]))
			continue;
		add_row(t, o->words[i], NULL, "bad", "there is no such export");
		n_bad++;
	}
	return n_bad;
}

static size_t check_negotiator(struct table *t, const struct verb_options *o)
{
	struct failure why = { 0 };
	int r;

	if (!o->places.of_units || o->n_words)
		return 0;
	r = negotiator_settings_check(NEGOTIATOR_CONF, &why);
	if (r == 0)
		return 0;
	add_row(t, "negotiator.conf", NEGOTIATOR_CONF, r < 0 ? "bad" : "good",
	        r < 0 ? why.text : NULL);
	return r < 0;
}

/* How many are bad. */
static size_t check_files(struct table *t, const struct verb_options *o,
                          const struct files *files)
{
	size_t n_bad = check_asked_for(t, o, files);

	for (size_t i = 0; i < files->n_good; i++)
		if (is_wanted(o, files->good[i].label))
			n_bad += check_good(t, o, files, &files->good[i]);
	for (size_t i = 0; i < files->n_bad; i++) {
		const struct bad_file *bad = &files->bad[i];

		if (!is_wanted(o, bad->label))
			continue;
		add_row(t, bad->label ? bad->label : "-", bad->path, "bad", bad->sentence);
		n_bad++;
	}
	return n_bad + check_negotiator(t, o);
}

static int check(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	struct table *t;
	struct files files;
	size_t n_bad;
	int r = files_read(o->places.exports, &files, why);

	if (r < 0)
		return r;
	r = table_new("files", columns, ARRAY_LEN(columns), &o->table, &t, why);
	if (r == 0) {
		n_bad = check_files(t, o, &files);
		r = table_print(t, why);
		if (r == 0 && n_bad > 0)
			r = fail_plain(why, EBADMSG, "%zu file%s bad", n_bad,
			               n_bad == 1 ? " is" : "s are");
		table_free(t);
	}
	files_clear(&files);
	return r;
}

int verb_check(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, check);
}
