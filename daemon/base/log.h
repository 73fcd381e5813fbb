/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logging: one call, one entry.
 *
 * Under systemd (stderr is the journal) an entry carries fields: EXPORT=,
 * CLIENT= and REASON= where they are known.  Elsewhere it is one line on
 * stderr, "nbd-export[web1]: client 127.0.0.1:4711: sentence".
 *
 * Only the place that gives up on something logs it; see base/failure.h.
 * Text that came from outside is made printable here, so no caller needs to.
 */
#pragma once

#include <syslog.h>

#include "base/attr.h"

/* Who an entry is about; a NULL member is left out.  The strings are borrowed. */
struct subject {
	const char *export_label;       /* EXPORT= */
	const char *client;             /* CLIENT=, a printable address */
	const char *reason;             /* REASON=, a stable code from wire/reason.h */
};

/* `program` is borrowed for good.  `level`: the highest syslog level that is written. */
void log_start(const char *program, int level);

/* Makes LOG_DEBUG entries appear (or not). */
void log_set_level(int level);
int log_level(void);

void log_about(int level, const struct subject *about, const char *fmt, ...) PRINTF(3, 4);

#define log_error(...) log_about(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_about(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_about(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_about(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_about(LOG_DEBUG, NULL, __VA_ARGS__)
