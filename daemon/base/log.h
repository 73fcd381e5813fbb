/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logging: one call, one entry.
 *
 * Under systemd (stderr is the journal) an entry carries fields: EXPORT=,
 * CLIENT= and REASON= where they are known, and MESSAGE_ID= and EVENT= if it tells
 * of an event; base/events.h has them all.  Elsewhere it is one line on
 * stderr, "nbd-export[web1]: client 127.0.0.1:4711: sentence".
 *
 * No entry waits long for whoever reads the log: where that does not read, entries are lost, and
 * the next that gets through has one in front that says how many, which base/log-attach.h brings
 * where no next one comes.
 *
 * Only the place that gives up on something logs it; see base/failure.h.
 * Text that came from outside is made printable here, so no caller needs to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "base/attr.h"
#include "base/events.h"

/* What a connection has done. */
struct log_counters {
	uint64_t requests;              /* REQUESTS= */
	uint64_t errors;                /* ERRORS=, requests that failed */
	uint64_t bytes_read;            /* BYTES_READ= */
	uint64_t bytes_written;         /* BYTES_WRITTEN= */
	uint64_t duration_usec;         /* DURATION_USEC= */
};

/* What an entry is about; a member that is zero is left out.  Strings are borrowed. */
struct subject {
	const char *export_label;       /* EXPORT= */
	const char *client;             /* CLIENT=, a printable address */
	const char *reason;             /* REASON=, a stable code from wire/reason.h */
	enum event event;               /* MESSAGE_ID= and EVENT= */
	uint64_t connection;            /* CONNECTION=, its number at the export */
	const struct log_counters *counters;
	const char *bitmap;             /* BITMAP=, its name */
	uint64_t bytes;                 /* BYTES=, of the device */
	uint64_t sectors;               /* SECTORS=, of 512 bytes */
	const char *identity;           /* IDENTITY=, what TLS tells of the client; "": nothing */
};

/* `program` is borrowed for good.  `level`: the highest syslog level that is written.  By the main
 * thread: others never wait for who reads the log. */
void log_start(const char *program, int level);

/* For a program without a unit, whose stderr is nothing: the journal, where entries about an export are
 * its unit's (which is believed of root alone).  False where no journal runs. */
bool log_use_journal(void);

/* For a tool, whose words are for who runs it: it waits as long as that takes to read them. */
void log_wait_for_reader(void);

/* What every entry of this process is about that names no other export; borrowed for good. */
void log_set_export(const char *label);

/* Makes LOG_DEBUG entries appear (or not). */
void log_set_level(int level);
int log_level(void);

void log_about(int level, const struct subject *about, const char *fmt, ...) PRINTF(3, 4);

/* An event at the level of its kind; `about` may be NULL, and its own event does not count. */
void log_event(enum event event, const struct subject *about, const char *fmt, ...) PRINTF(3, 4);

/* Whether entries were lost of which no entry tells yet, and that entry, which may get lost too. */
bool log_has_lost(void);
void log_tell_lost(void);

#define log_error(...) log_about(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_about(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_about(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_about(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_about(LOG_DEBUG, NULL, __VA_ARGS__)
