/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl show: all about one export: settings, device, durability, what it does.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "ctl/bitmap-call.h"
#include "ctl/command-line.h"
#include "ctl/durability.h"
#include "ctl/export-state.h"
#include "ctl/running.h"
#include "ctl/settings-words.h"

enum {
	LABEL, NAME, DESCRIPTION, DEVICE, FILE_PATH, STATE, REASON, SINCE,
	READ_ONLY, SHARED, DIRECT, DEFAULT, ALLOW, TLS, IDENTITY, START_AT_BOOT, IDLE_TIMEOUT,
	MAX_CONNECTIONS, MAX_PER_SOURCE, SINGLE_WRITER, RESIZE_RECONNECT, ENGINE, THREADS, MEMORY,
	SIZE, SECTOR, PHYSICAL_BLOCK, OPTIMAL_IO, ROTATIONAL, CAN_DISCARD,
	WRITE_CACHE, DURABILITY, FLUSH_FAILED, STUCK_SINCE,
	CLIENTS, REQUESTS, ERRORS, READ, WRITTEN, MEMORY_USED,
	BITMAPS, BITMAP_STORE, BITMAP_GRANULARITY, BITMAP_REGION, BITMAP_ARM_LIMIT, BITMAP_COLD,
	ON_BITMAP_ERROR, BITMAP_ARMED, BITMAP_UNCLEAN_ENDS, BITMAP_FAILING,
};

static const struct column columns[] = {
	[LABEL] = { "LABEL", COLUMN_TEXT, false, "of the file and of units" },
	[NAME] = { "NAME", COLUMN_TEXT, false, "for clients" },
	[DESCRIPTION] = { "DESCRIPTION", COLUMN_TEXT, false, "for clients" },
	[DEVICE] = { "DEVICE", COLUMN_TEXT, false, "the block device or file" },
	[FILE_PATH] = { "FILE", COLUMN_TEXT, false, "with the settings" },
	[STATE] = { "STATE", COLUMN_TEXT, false,
	            "serving, draining, drained, no-device, inactive, failed" },
	[REASON] = { "REASON", COLUMN_TEXT, false, "of the state" },
	[SINCE] = { "SINCE", COLUMN_TIME, false, "when its process started" },
	[READ_ONLY] = { "READ-ONLY", COLUMN_BOOL, false, "of a running one: what is so now" },
	[SHARED] = { "SHARED", COLUMN_BOOL, false, "the setting" },
	[DIRECT] = { "DIRECT", COLUMN_BOOL, false, "O_DIRECT; of a running one what is so now" },
	[DEFAULT] = { "DEFAULT", COLUMN_BOOL, false, "answers to the empty name" },
	[ALLOW] = { "ALLOW", COLUMN_TEXT, false, "the setting; -: negotiator.conf's" },
	[TLS] = { "TLS", COLUMN_TEXT, false, "off, allow, require; -: negotiator.conf's" },
	[IDENTITY] = { "IDENTITY", COLUMN_LIST, false, "rules; none: negotiator.conf's" },
	[START_AT_BOOT] = { "START-AT-BOOT", COLUMN_BOOL, false, "the setting" },
	[IDLE_TIMEOUT] = { "IDLE-TIMEOUT", COLUMN_NUMBER, false, "seconds; 0: never" },
	[MAX_CONNECTIONS] = { "MAX-CONNECTIONS", COLUMN_NUMBER, false, "clients at a time" },
	[MAX_PER_SOURCE] = { "MAX-PER-SOURCE", COLUMN_NUMBER, false, "0: MAX-CONNECTIONS" },
	[SINGLE_WRITER] = { "SINGLE-WRITER", COLUMN_BOOL, false, "one client at a time that may write" },
	[RESIZE_RECONNECT] = { "RESIZE-RECONNECT", COLUMN_BOOL, false, "closes clients when it has grown" },
	[ENGINE] = { "ENGINE", COLUMN_TEXT, false, "of a running one: what is so now" },
	[THREADS] = { "THREADS", COLUMN_NUMBER, false, "request loops" },
	[MEMORY] = { "MEMORY", COLUMN_SIZE, false, "for requests in flight" },
	[SIZE] = { "SIZE", COLUMN_SIZE, false, "of the device" },
	[SECTOR] = { "SECTOR", COLUMN_NUMBER, false, "bytes; what I/O is aligned to" },
	[PHYSICAL_BLOCK] = { "PHYSICAL-BLOCK", COLUMN_NUMBER, false, "bytes" },
	[OPTIMAL_IO] = { "OPTIMAL-IO", COLUMN_NUMBER, false, "bytes" },
	[ROTATIONAL] = { "ROTATIONAL", COLUMN_BOOL, false, "a disk that turns" },
	[CAN_DISCARD] = { "CAN-DISCARD", COLUMN_BOOL, false, "TRIM frees space" },
	[WRITE_CACHE] = { "WRITE-CACHE", COLUMN_BOOL, false, "volatile" },
	[DURABILITY] = { "DURABILITY", COLUMN_TEXT, false, "how FLUSH and FUA reach media" },
	[FLUSH_FAILED] = { "FLUSH-FAILED", COLUMN_TEXT, false,
	                   "why FLUSH and FUA fail until nbdctl clear-error" },
	[STUCK_SINCE] = { "STUCK-SINCE", COLUMN_TIME, false, "I/O of the device that does not end" },
	[CLIENTS] = { "CLIENTS", COLUMN_NUMBER, false, "connected" },
	[REQUESTS] = { "REQUESTS", COLUMN_NUMBER, false, "of clients, since it runs" },
	[ERRORS] = { "ERRORS", COLUMN_NUMBER, false, "requests that failed" },
	[READ] = { "READ", COLUMN_SIZE, false, "by clients" },
	[WRITTEN] = { "WRITTEN", COLUMN_SIZE, false, "by clients" },
	[MEMORY_USED] = { "MEMORY-USED", COLUMN_SIZE, false, "by requests in flight" },
	[BITMAPS] = { "BITMAPS", COLUMN_LIST, false, "that must exist; nbdctl bitmap list has all" },
	[BITMAP_STORE] = { "BITMAP-STORE", COLUMN_TEXT, false, "the file that keeps bitmaps" },
	[BITMAP_GRANULARITY] = { "BITMAP-GRANULARITY", COLUMN_SIZE, true, "that a bit stands for" },
	[BITMAP_REGION] = { "BITMAP-REGION", COLUMN_SIZE, true, "what a crash makes dirty at once" },
	[BITMAP_ARM_LIMIT] = { "BITMAP-ARM-LIMIT", COLUMN_NUMBER, true, "regions at a time" },
	[BITMAP_COLD] = { "BITMAP-COLD", COLUMN_NUMBER, true, "seconds until a region rests" },
	[ON_BITMAP_ERROR] = { "ON-BITMAP-ERROR", COLUMN_TEXT, true, "lost or stop" },
	[BITMAP_ARMED] = { "BITMAP-ARMED", COLUMN_NUMBER, true, "regions that a crash makes dirty" },
	[BITMAP_UNCLEAN_ENDS] = { "BITMAP-UNCLEAN-ENDS", COLUMN_NUMBER, true,
	                          "of the export or the machine, that bitmaps have survived" },
	[BITMAP_FAILING] = { "BITMAP-FAILING", COLUMN_TEXT, false, "why bitmaps cannot be kept" },
};

static const struct command command = {
	.verb = "show",
	.arguments = "LABEL",
	.about = "Show all about one export: settings, device, durability, and what it does.\n",
	.min_words = 1,
	.max_words = 1,
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

static void set_words(struct table *t, size_t column, const char *text)
{
	if (text && *text)
		table_set_text(t, column, text);
}

/* Names as a column of words has them: by \n. */
static void set_names(struct table *t, const char *names)
{
	AUTO_FREE char *lines = strdup(names);

	for (char *at = lines; at && *at; at++)
		if (*at == ' ' || *at == '\t')
			*at = '\n';
	table_set_list(t, BITMAPS, lines);
}

static void add_bitmap_settings(struct table *t, const struct export_settings *s)
{
	set_names(t, s->bitmaps);
	set_words(t, BITMAP_STORE, s->bitmap_store);
	table_set_number(t, BITMAP_GRANULARITY, s->bitmap_granularity);
	table_set_number(t, BITMAP_REGION, s->bitmap_region);
	table_set_number(t, BITMAP_ARM_LIMIT, s->bitmap_arm_limit);
	table_set_number(t, BITMAP_COLD, s->bitmap_cold);
	table_set_text(t, ON_BITMAP_ERROR, on_bitmap_error_word(s->on_bitmap_error));
}

/* An export that does not tell has just ended, or is of an older version. */
static void add_running_bitmaps(struct table *t, const struct places *p, const char *label)
{
	struct bitmap_status status = { 0 };
	struct failure ignored = { 0 };
	AUTO_BUS *bus = NULL;

	if (running_connect(p, label, &bus, &ignored) < 0 ||
	    bitmap_status(bus, label, &status, &ignored) < 0)
		return;
	if (status.has_store) {
		set_words(t, BITMAP_STORE, status.path);
		table_set_number(t, BITMAP_GRANULARITY, status.granularity);
		table_set_number(t, BITMAP_REGION, status.region);
		table_set_number(t, BITMAP_ARM_LIMIT, status.arm_limit);
		table_set_number(t, BITMAP_ARMED, status.armed);
		table_set_number(t, BITMAP_UNCLEAN_ENDS, status.unclean_ends);
	}
	set_words(t, BITMAP_FAILING, status.failing);
	bitmap_status_clear(&status);
}

static void add_settings(struct table *t, const struct export_settings *s)
{
	table_set_text(t, LABEL, s->label);
	table_set_text(t, NAME, s->name);
	set_words(t, DESCRIPTION, s->description);
	table_set_text(t, DEVICE, s->device);
	table_set_bool(t, READ_ONLY, s->read_only);
	table_set_bool(t, SHARED, s->shared);
	table_set_bool(t, DIRECT, s->direct);
	table_set_bool(t, DEFAULT, s->is_default);
	set_words(t, ALLOW, s->allow);
	set_words(t, TLS, tls_policy_word(s->tls));
	table_set_list(t, IDENTITY, s->identity);
	table_set_bool(t, START_AT_BOOT, s->start_at_boot);
	table_set_number(t, IDLE_TIMEOUT, s->idle_timeout);
	table_set_number(t, MAX_CONNECTIONS, s->max_connections);
	table_set_number(t, MAX_PER_SOURCE, s->max_per_source);
	table_set_bool(t, SINGLE_WRITER, s->single_writer);
	table_set_bool(t, RESIZE_RECONNECT, s->resize_reconnect);
	table_set_text(t, ENGINE, engine_word(s->engine));
	table_set_number(t, THREADS, s->threads);
	table_set_number(t, MEMORY, export_settings_memory(s));
	add_bitmap_settings(t, s);
}

/* What is so now stands above what the file says. */
static void add_running(struct table *t, const struct running *r)
{
	table_set_number(t, SINCE, r->since);
	table_set_bool(t, READ_ONLY, r->read_only);
	table_set_bool(t, DIRECT, r->direct);
	set_words(t, ENGINE, r->engine);
	table_set_number(t, THREADS, r->threads);
	table_set_number(t, MEMORY, r->memory);
	table_set_number(t, MAX_CONNECTIONS, r->max_connections);
	table_set_number(t, SECTOR, r->sector);
	table_set_number(t, PHYSICAL_BLOCK, r->physical_block);
	table_set_number(t, OPTIMAL_IO, r->optimal_io);
	table_set_bool(t, ROTATIONAL, r->rotational);
	table_set_bool(t, CAN_DISCARD, r->can_discard);
	table_set_bool(t, WRITE_CACHE, r->write_cache);
	if (r->stuck_since)
		table_set_number(t, STUCK_SINCE, r->stuck_since);
	table_set_number(t, CLIENTS, r->connections);
	table_set_number(t, REQUESTS, r->requests);
	table_set_number(t, ERRORS, r->errors);
	table_set_number(t, READ, r->bytes_read);
	table_set_number(t, WRITTEN, r->bytes_written);
	table_set_number(t, MEMORY_USED, r->memory_used);
}

static void add_export(struct table *t, const struct places *p, const char *file,
                       const struct export_settings *s)
{
	struct export_state e;
	char words[160];

	export_state_read(p, s, &e);
	table_row(t);
	add_settings(t, s);
	table_set_text(t, FILE_PATH, file);
	table_set_text(t, STATE, e.word);
	table_set_text(t, REASON, e.reason);
	if (e.has_size)
		table_set_number(t, SIZE, e.size);
	durability_words(s->device, e.runs ? &e.running.write_cache : NULL, words, sizeof words);
	set_words(t, DURABILITY, words);
	set_words(t, FLUSH_FAILED, e.running.flush_failed);
	if (e.runs) {
		add_running(t, &e.running);
		add_running_bitmaps(t, p, s->label);
	} else if (!e.silent) {
		table_set_number(t, CLIENTS, 0);
	}
	export_state_clear(&e);
}

static int show(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *label = o->words[0];
	AUTO_FREE char *file = NULL;
	struct export_settings s;
	struct table *t;
	int r = export_label_check(label, why);

	if (r < 0)
		return r;
	file = places_file(&o->places, label);
	if (!file)
		return fail(why, ENOMEM, "cannot look for %s", label);
	if (access(file, F_OK) < 0 && errno == ENOENT)
		return fail_plain(why, ENOENT, "there is no export %s: no file %s", label, file);
	r = export_settings_read(file, &s, why);
	if (r < 0) {
		why->code = EBADMSG;            /* the file's fault, not the command line's */
		return -why->code;
	}
	r = table_new("exports", columns, ARRAY_LEN(columns), &o->table, &t, why);
	if (r == 0) {
		add_export(t, &o->places, file, &s);
		r = table_print_upright(t, why);
		table_free(t);
	}
	export_settings_clear(&s);
	return r;
}

int verb_show(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, show);
}
