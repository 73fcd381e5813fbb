/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl clear-error: an administrator's word that the device is good again, after a flush
 * that failed.  What is remembered of the device of an export that does not run is removed here,
 * and the journal told.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/device-identity.h"
#include "base/events.h"
#include "base/export-settings.h"
#include "base/latch-file.h"
#include "base/text.h"
#include "ctl/command-line.h"
#include "ctl/running.h"
#include "ctl/units.h"

static const struct command command = {
	.verb = "clear-error",
	.arguments = "LABEL",
	.about =
"After a flush that failed, FLUSH and FUA go on failing, since data that was\n"
"acknowledged may be lost, until this says that the device was looked after.\n",
	.min_words = 1,
	.max_words = 1,
};

static void tell(const char *label, const char *what)
{
	char shown[LATCH_REASON_SIZE];

	printable(span_of(what), sizeof shown - 4, shown, sizeof shown);
	(void) printf("cleared the error of %s: %s\n", label, shown);
}

/* As the export itself would; OBJECT_SYSTEMD_UNIT= puts it among the unit's own entries. */
static void note_in_journal(const char *label, const char *reason)
{
	const struct event_kind *kind = event_kind(EVENT_FLUSH_CLEARED);
	char unit[UNIT_NAME_SIZE];

	units_service_of(label, unit);
	(void) sd_journal_send("MESSAGE=cleared by nbdctl, user %u (process %ld): %s", getuid(),
	                       (long) getpid(), reason, "MESSAGE_ID=%s", kind->id,
	                       "EVENT=%s", kind->name, "PRIORITY=%i", kind->level,
	                       "SYSLOG_IDENTIFIER=nbdctl", "EXPORT=%s", label,
	                       "OBJECT_SYSTEMD_UNIT=%s", unit, NULL);
}

/* What the export's file names. */
static int identify(const struct places *p, const char *label,
                    char ret[static DEVICE_IDENTITY_SIZE], struct failure *why)
{
	AUTO_FREE char *file = places_file(p, label);
	struct export_settings s = { 0 };
	int r;

	if (!file)
		return fail(why, ENOMEM, "cannot look for %s's errors", label);
	r = export_settings_read(file, &s, why);
	if (r < 0) {
		why->code = EBADMSG;            /* the file's fault, not the command line's */
		return -why->code;
	}
	r = device_identity_of_path(s.device, ret, why);
	export_settings_clear(&s);
	return r;
}

static int clear_notes(const char *label, const char *identity, struct failure *why)
{
	char path[PATH_MAX], reason[LATCH_REASON_SIZE];
	struct latch_place place;
	int r;

	latch_place_find(NULL, &place);
	r = latch_file_find(place.all, identity, path);
	if (r == 0)
		r = latch_file_read(path, reason);
	if (r == -ENOENT)
		return fail_plain(why, ENODATA, "%s: no flush has failed", label);
	if (r < 0)
		return fail(why, -r, "cannot look for %s", path);
	r = latch_file_remove(place.all, identity, why);
	if (r < 0)
		return r;
	note_in_journal(label, reason);
	tell(label, reason);
	return 0;
}

static int clear_remembered(const struct places *p, const char *label, struct failure *why)
{
	char identity[DEVICE_IDENTITY_SIZE];
	int r = identify(p, label, identity, why);

	return r < 0 ? r : clear_notes(label, identity, why);
}

/* Those that the device has from other labels, which the export of a unit may not remove; it says
 * so, if we may not either. */
static void remove_other_notes(const struct places *p, const char *label)
{
	char identity[DEVICE_IDENTITY_SIZE];
	struct running running = { 0 };
	struct failure ignored = { 0 };
	struct latch_place place;

	latch_place_find(NULL, &place);
	if (running_read(p, label, &running, &ignored) == 0 && running.flush_failed &&
	    *running.flush_failed && identify(p, label, identity, &ignored) == 0)
		(void) latch_file_remove(place.all, identity, &ignored);
	running_clear(&running);
}

static int clear_running(sd_bus *bus, const char *label, struct failure *why)
{
	AUTO_MESSAGE *reply = NULL;
	const char *what;
	int r = control_call(bus, CONTROL_EXPORT(label), "ClearError", NULL, CONTROL_PATIENCE,
	                     &reply, why);

	if (r < 0)
		return r;
	r = sd_bus_message_read_basic(reply, 's', &what);
	if (r < 0)
		return fail(why, -r, "cannot understand %s", label);
	tell(label, what);
	return 0;
}

static int clear_error(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	int r = running_connect(&o->places, label, &bus, &cause);

	if (r == 0) {
		remove_other_notes(&o->places, label);
		return clear_running(bus, label, why);
	}
	if (r != -ENOTCONN) {
		*why = cause;
		return r;
	}
	return clear_remembered(&o->places, label, why);
}

int verb_clear_error(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, clear_error);
}
