/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl add: an export's file, and what makes it run.
 *
 * Under the folder's lock: compare with what is there, check the device, write.  Then systemd
 * and the daemons are told.  Whatever fails before the file has its name leaves nothing.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/access.h"
#include "base/attr.h"
#include "base/log.h"
#include "base/settings.h"
#include "ctl/absolute-path.h"
#include "ctl/activate.h"
#include "ctl/catalogue.h"
#include "ctl/command-line.h"
#include "ctl/device-check.h"
#include "ctl/folder-lock.h"
#include "ctl/running.h"
#include "ctl/settings-words.h"

#define CONNECTIONS_DEFAULT 256u

struct add_options {
	struct verb_options common;
	struct export_settings settings;
	bool replace;
};

/* What became of it. */
enum outcome { ADDED, REPLACED, UNCHANGED };

struct change {
	enum outcome outcome;
	char words[1024];               /* how it differs from what was there */
	char restart[256];              /* keys that wait for a restart */
};

/* --allow may be given several times: one list, in that order. */
static int parse_allow(const char *value, void *into, struct failure *why)
{
	char **list = into;
	struct access_list parsed = { 0 };
	char *more;
	int r = access_list_parse(value, &parsed, why);

	if (r < 0)
		return r;
	access_list_clear(&parsed);
	if (asprintf(&more, "%s%s%s", *list ? *list : "", *list ? " " : "", value) < 0)
		return fail(why, ENOMEM, "cannot keep it");
	free(*list);
	*list = more;
	return 0;
}

#define SETTING(member) offsetof(struct add_options, settings.member)

static const struct verb_option options[] = {
	{ 0, "name", "NAME", setting_string, SETTING(name),
	  "the export's name for clients (LABEL)\n" },
	{ 0, "description", "TEXT", setting_string, SETTING(description),
	  "what clients see beside the name when they list exports\n" },
	{ 0, "read-only", NULL, option_flag, SETTING(read_only),
	  "clients cannot write, and the device is opened for reading\n" },
	{ 0, "shared", NULL, option_flag, SETTING(shared),
	  "with --read-only: also what is mounted or otherwise in use\n" },
	{ 0, "default", NULL, option_flag, SETTING(is_default),
	  "it answers to the empty name too\n" },
	{ 0, "allow", "RULE", parse_allow, SETTING(allow),
	  "who gets in: 10.0.0.0/8, 192.0.2.7:read, [2001:db8::]/32,\n"
	  "local or any; may be given several times, the first that\n"
	  "matches counts (what negotiator.conf says, or else this\n"
	  "machine alone)\n" },
	{ 0, "start-at-boot", NULL, option_flag, SETTING(start_at_boot),
	  "start with the machine, not with the first client\n" },
	{ 0, "idle-timeout", "SECONDS", setting_u32, SETTING(idle_timeout),
	  "stop after so long without a client (never)\n" },
	{ 0, "max-connections", "N", setting_u32, SETTING(max_connections),
	  "clients at a time (256)\n" },
	{ 0, "max-connections-per-source", "N", setting_u32, SETTING(max_per_source),
	  "of them from one address (0: as many as there may be)\n" },
	{ 0, "memory", "SIZE", setting_size, SETTING(memory),
	  "memory for requests in flight (64M a thread)\n" },
	{ 0, "threads", "N", setting_u32, SETTING(threads),
	  "request loops (1)\n" },
	{ 0, "engine", "NAME", export_engine_parse, SETTING(engine),
	  "what the loops run on: io_uring, threads or auto (auto)\n" },
	{ 0, "direct", "yes|no", setting_bool, SETTING(direct),
	  "no: go through the page cache (yes)\n" },
	{ 0, "replace", NULL, option_flag, offsetof(struct add_options, replace),
	  "an export LABEL that is there gets these settings, and no\n"
	  "others; its clients stay connected\n" },
};

static const struct command command = {
	.verb = "add",
	.arguments = "LABEL DEVICE",
	.about =
"Export a block device or a file: check that it is free, write LABEL.conf, and\n"
"start listening for clients of it, through systemd.  LABEL is a short name for\n"
"commands and units: letters, digits and :-_.\\ .  An export that is there with\n"
"the same settings is left alone.\n",
	.min_words = 2,
	.max_words = 2,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int keep(char **into, const char *text, struct failure *why)
{
	if (*into)
		return 0;
	*into = strdup(text);
	return *into ? 0 : fail(why, ENOMEM, "cannot keep the settings");
}

/* As a file with these settings would read. */
static int complete(struct add_options *o, struct failure *why)
{
	struct export_settings *s = &o->settings;
	int r = export_label_check(o->common.words[0], why);

	if (r < 0)
		return r;
	if (s->shared && !s->read_only)
		return fail_plain(why, EINVAL, "--shared needs --read-only: two who write the same "
		                  "disk without knowing of each other destroy it");
	s->device = absolute_path(o->common.words[1]);
	if (!s->device)
		return fail(why, ENOMEM, "cannot keep the device's path");
	r = keep(&s->label, o->common.words[0], why);
	if (r == 0)
		r = keep(&s->name, s->label, why);
	if (r == 0)
		r = keep(&s->description, "", why);
	return r < 0 ? r : keep(&s->allow, "", why);
}

/* Whether it may be written, and what that changes. */
static int compare(const struct add_options *o, const struct files *files,
                   struct change *change, struct failure *why)
{
	const struct export_settings *s = &o->settings;
	const struct export_settings *before = files_find(files, s->label);
	const struct bad_file *bad = files_find_bad(files, s->label);

	if (bad && !o->replace)
		return fail_plain(why, EEXIST, "%s is there, with a bad file: %s (--replace makes "
		                  "it anew)", s->label, bad->sentence);
	change->outcome = bad ? REPLACED : ADDED;
	if (!before)
		return 0;
	if (!settings_differ(s, before, change->words, sizeof change->words, change->restart,
	                     sizeof change->restart)) {
		change->outcome = UNCHANGED;
		return 0;
	}
	if (!o->replace)
		return fail_plain(why, EEXIST, "%s is there with other settings; --replace would "
		                  "change %.400s", s->label, change->words);
	change->outcome = REPLACED;
	return 0;
}

/* A running export holds its device itself. */
static int check_device(const struct add_options *o, const struct files *files,
                        struct failure *why)
{
	const struct places *p = &o->common.places;
	const struct export_settings *s = &o->settings;
	const struct export_settings *before = files_find(files, s->label);
	struct failure ignored = { 0 };
	AUTO_BUS *bus = NULL;

	if (before && strcmp(before->device, s->device) == 0 &&
	    running_connect(p, s->label, &bus, &ignored) == 0)
		return 0;
	return device_check(s, p->of_units, why);
}

static int write_beside(const struct add_options *o, const struct files *files,
                        struct change *change, struct failure *why)
{
	int r = compare(o, files, change, why);

	if (r < 0 || change->outcome == UNCHANGED)
		return r;
	r = files_check_beside(files, &o->settings, why);
	if (r == 0)
		r = check_device(o, files, why);
	return r < 0 ? r : export_settings_write(o->common.places.exports, &o->settings, why);
}

static int write_locked(const struct add_options *o, struct change *change,
                        struct failure *why)
{
	struct files files;
	AUTO_FD lock = -1;
	int r = folder_lock(o->common.places.exports, &lock, why);

	if (r == 0)
		r = files_read(o->common.places.exports, &files, why);
	if (r < 0)
		return r;
	r = write_beside(o, &files, change, why);
	files_clear(&files);
	return r;
}

static void tell(const struct add_options *o, const struct change *change)
{
	const struct export_settings *s = &o->settings;
	const struct places *p = &o->common.places;

	switch (change->outcome) {
	case ADDED:
		(void) printf("added %s: %s, %s\n", s->label, s->device,
		              s->read_only ? "read-only" : "read-write");
		break;
	case REPLACED:
		(void) printf("changed %s%s%s\n", s->label, *change->words ? ": " : "",
		              change->words);
		break;
	case UNCHANGED:
		(void) printf("%s is there already, with these settings\n", s->label);
		break;
	}
	if (!p->of_units && change->outcome != UNCHANGED)
		(void) printf("written to %s; systemd's units are of another folder, so none was "
		              "started\n", p->exports);
}

/* Settings that a running export cannot change. */
static void tell_restart(const struct add_options *o, const struct change *change)
{
	struct running running = { 0 };
	struct failure ignored = { 0 };

	if (!*change->restart ||
	    running_read(&o->common.places, o->settings.label, &running, &ignored) < 0)
		return;
	log_notice("%s runs, with %u client%s, and takes up %s only when it starts again: "
	           "systemctl restart nbd-export@%s.service", o->settings.label,
	           running.connections, running.connections == 1 ? "" : "s", change->restart,
	           o->settings.label);
	running_clear(&running);
}

static int add(struct add_options *o, struct change *change, struct failure *why)
{
	int r;

	if (o->common.places.of_serve && !o->common.exports)
		return fail_plain(why, ENOTSUP, "`nbdctl serve` serves what it was started with");
	r = complete(o, why);
	if (r == 0)
		r = write_locked(o, change, why);
	if (r < 0)
		return r;
	if (activate(&o->common.places, &o->settings, why) < 0)
		return fail_while(why, "the file of %s is %s, but", o->settings.label,
		                  change->outcome == UNCHANGED ? "there" : "written");
	return 0;
}

static int run(const void *options_read, struct failure *why)
{
	struct add_options o = *(const struct add_options *) options_read;
	struct change change = { .outcome = ADDED };
	int r = add(&o, &change, why);

	if (r == 0) {
		tell(&o, &change);
		tell_restart(&o, &change);
	}
	export_settings_clear(&o.settings);
	return r;
}

int verb_add(int argc, char **argv)
{
	struct add_options o = {
		.settings = { .direct = true, .threads = 1,
		              .max_connections = CONNECTIONS_DEFAULT },
	};

	return command_run(&command, argc, argv, &o, run);
}
