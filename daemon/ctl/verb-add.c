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
#include "base/identity.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/settings.h"
#include "ctl/absolute-path.h"
#include "ctl/activate.h"
#include "ctl/command-line.h"
#include "ctl/device-check.h"
#include "ctl/files.h"
#include "ctl/folder-lock.h"
#include "ctl/quiesce.h"
#include "ctl/running.h"
#include "ctl/settings-words.h"

struct add_options {
	struct verb_options common;
	struct export_settings settings;
	struct quiesce_options quiesce;
	bool replace;
};

/* What became of it. */
enum outcome { ADDED, REPLACED, UNCHANGED };

struct change {
	enum outcome outcome;
	bool moves;                     /* to another device, or so it may be */
	bool anew;                      /* what runs must not go on */
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

/* --bitmap likewise. */
static int parse_bitmap(const char *value, void *into, struct failure *why)
{
	char **names = into;
	char *more;
	int r = bitmap_name_check(value, why);

	if (r < 0)
		return r;
	if (asprintf(&more, "%s%s%s", *names ? *names : "", *names ? " " : "", value) < 0)
		return fail(why, ENOMEM, "cannot keep it");
	free(*names);
	*names = more;
	return bitmap_names_check(more, why);
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
	{ 0, "tls", "off|allow|require", setting_tls_policy, SETTING(tls),
	  "whether clients may, or have to, use TLS (what negotiator.conf\n"
	  "says)\n" },
	{ 0, "identity", "RULE", setting_identity, SETTING(identity),
	  "who gets in by TLS: \"read dns:*.example.org\", \"write psk:a\";\n"
	  "may be given several times, the first that matches counts\n" },
	{ 0, "start-at-boot", NULL, option_flag, SETTING(start_at_boot),
	  "start with the machine, not with the first client\n" },
	{ 0, "idle-timeout", "SECONDS", setting_u32, SETTING(idle_timeout),
	  "stop after so long without a client (never)\n" },
	{ 0, "resize-reconnect", NULL, option_flag, SETTING(resize_reconnect),
	  "close clients when the device has grown, to connect again\n" },
	{ 0, "max-connections", "N", export_connections_parse, SETTING(max_connections),
	  "clients at a time (256)\n" },
	{ 0, "max-connections-per-source", "N", setting_u32, SETTING(max_per_source),
	  "of them from one address (0: as many as there may be)\n" },
	{ 0, "single-writer", NULL, option_flag, SETTING(single_writer),
	  "one client at a time that may write\n" },
	{ 0, "memory", "SIZE", setting_size, SETTING(memory),
	  "memory for requests in flight (64M a thread)\n" },
	{ 0, "threads", "N", setting_u32, SETTING(threads),
	  "request loops (1)\n" },
	{ 0, "engine", "NAME", export_engine_parse, SETTING(engine),
	  "what the loops run on: io_uring, threads or auto (auto)\n" },
	{ 0, "direct", "yes|no", setting_bool, SETTING(direct),
	  "no: go through the page cache (yes)\n" },
	{ 0, "bitmap", "NAME", parse_bitmap, SETTING(bitmaps),
	  "a dirty bitmap that the export always has; may be given\n"
	  "several times\n" },
	{ 0, "bitmap-store", "PATH", setting_bitmap_store, SETTING(bitmap_store),
	  "the file that keeps bitmaps\n"
	  "(" STATE_DIR "/LABEL/bitmaps)\n" },
	{ 0, "bitmap-granularity", "SIZE", setting_bitmap_granularity, SETTING(bitmap_granularity),
	  "bytes that a bit stands for, of a new store (64K)\n" },
	{ 0, "bitmap-region", "SIZE", setting_bitmap_region, SETTING(bitmap_region),
	  "bytes that become dirty at once by a crash (4M)\n" },
	{ 0, "bitmap-arm-limit", "N", setting_bitmap_arm_limit, SETTING(bitmap_arm_limit),
	  "how many of these at most (1024)\n" },
	{ 0, "bitmap-cold", "SECONDS", setting_bitmap_cold, SETTING(bitmap_cold),
	  "how long after its last write one stays so (5)\n" },
	{ 0, "on-bitmap-error", "lost|stop", setting_on_bitmap_error, SETTING(on_bitmap_error),
	  "when bitmaps cannot be kept: mark them lost, or let writes\n"
	  "fail (lost)\n" },
	{ 0, "replace", NULL, option_flag, offsetof(struct add_options, replace),
	  "an export LABEL that is there gets these settings, and no\n"
	  "others; its clients stay connected.  With another DEVICE only\n"
	  "while it has none, or as these say:\n" },
	{ 0, "drain", "[=SECONDS]", quiesce_parse_drain, offsetof(struct add_options, quiesce),
	  "let clients finish what is in flight, flush, and close\n"
	  "them first; not within SECONDS: stay as it is\n" },
	{ 0, "force", NULL, option_flag, offsetof(struct add_options, quiesce.force),
	  "cut them off\n" },
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
	if (r == 0)
		r = keep(&s->allow, "", why);
	if (r == 0)
		r = keep(&s->identity, "", why);
	if (r == 0)
		r = keep(&s->bitmaps, "", why);
	return r < 0 ? r : keep(&s->bitmap_store, "", why);
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
	change->moves = true;                   /* something may run whose file was lost */
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
	change->moves = strcmp(before->device, s->device) != 0;
	return 0;
}

/* An export that does not run, or does not tell, has neither this device nor another. */
static bool runs_with(const struct places *p, const struct export_settings *s, bool another)
{
	struct running running = { 0 };
	struct failure ignored = { 0 };
	bool does = running_read(p, s->label, &running, &ignored) == 0 && running.device &&
	            (strcmp(running.device, s->device) != 0) == another;

	running_clear(&running);
	return does;
}

/* The file was written before, by hand or by an add that then failed, and what runs goes on with
 * another device.  Whether to do something about it. */
static bool is_left_behind(const struct add_options *o, struct change *change)
{
	const struct places *p = &o->common.places;

	if (!p->of_units || !runs_with(p, &o->settings, true))
		return false;
	if (!o->replace)
		(void) snprintf(change->restart, sizeof change->restart, "Device=");
	return o->replace;
}

/* A running export holds its device itself, and does also when its file has been lost.  Whether
 * it could be held more firmly is another matter: a shared one keeps nobody out. */
static bool is_held(const struct places *p, const struct export_settings *s,
                    const struct export_settings *before)
{
	struct running running = { 0 };
	struct failure ignored = { 0 };
	int r = running_read(p, s->label, &running, &ignored);
	bool held;

	if (r < 0)                              /* it may run, but does not tell */
		return !control_is_absent(r) && before && strcmp(before->device, s->device) == 0;
	held = running.device && strcmp(running.device, s->device) == 0 &&
	       (s->shared || !running.shared);
	running_clear(&running);
	return held;
}

static int check_device(const struct add_options *o, const struct files *files,
                        struct failure *why)
{
	const struct places *p = &o->common.places;
	const struct export_settings *s = &o->settings;
	int r = p->of_units ? device_path_check(s->device, why) : 0;

	if (r < 0 || is_held(p, s, files_find(files, s->label)))
		return r;
	return device_check(s, p->of_units, why);
}

static int write_file(const struct add_options *o, const struct change *change,
                      struct failure *why)
{
	if (change->outcome == UNCHANGED)
		return 0;
	return export_settings_write(o->common.places.exports, &o->settings, why);
}

/* Clients that come back would write what they have of the old disk to the new one; and so would
 * those that are there, after a restart. */
static int write_moved(const struct add_options *o, struct change *change, struct failure *why)
{
	const struct places *p = &o->common.places;
	const struct export_settings *s = &o->settings;
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	bool drained = false;
	int r = running_connect(p, s->label, &bus, &cause);

	if (r == -ENOTCONN || r == -ENOENT || (r == 0 && runs_with(p, s, false)))
		return write_file(o, change, why);
	if (r < 0 && !o->quiesce.force)
		return fail_plain(why, -r, "%s", cause.text);
	r = bus ? quiesce(&o->quiesce, bus, s->label, p->of_units, &drained, why) : 0;
	if (r < 0)
		return fail_while(why, "cannot give it another device");
	r = write_file(o, change, why);
	if (drained && (r < 0 || !p->of_units))
		quiesce_undo(bus, s->label, r < 0 ? why : NULL);
	change->anew = r == 0 && p->of_units;
	return r;
}

static int write_beside(const struct add_options *o, const struct files *files,
                        struct change *change, struct failure *why)
{
	int r = compare(o, files, change, why);

	if (r < 0 || (change->outcome == UNCHANGED && !is_left_behind(o, change)))
		return r;
	r = files_check_beside(files, &o->settings, why);
	if (r == 0)
		r = check_device(o, files, why);
	if (r < 0)
		return r;
	return change->moves ? write_moved(o, change, why) : write_file(o, change, why);
}

static int write_locked(const struct add_options *o, struct change *change,
                        struct failure *why)
{
	struct files files;
	AUTO_FD lock = -1;
	int r = folder_lock(&o->common.places, &lock, why);

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
		(void) printf("%s is there already, with these settings%s\n", s->label,
		              change->anew ? "; what ran with another device was stopped" : "");
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

	if (!*change->restart || change->anew ||
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
	if (activate(&o->common.places, &o->settings, change->anew, why) < 0)
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
		.settings = EXPORT_SETTINGS_DEFAULTS,
	};

	return command_run(&command, argc, argv, &o, run);
}
