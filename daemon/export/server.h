/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The export as its administrator sees it: one state, and what moves it.
 *
 *            drain                 flushed
 *   serving ──────► draining ─────────────────► drained
 *      ▲               │ resume                    │ resume
 *      └───────────────┴───────────────────────────┘
 *
 * A stop (signal, idle, device gone) goes the same way and ends the process behind it.
 * All of it is the main thread's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/export-settings.h"
#include "export/admit.h"
#include "export/census.h"
#include "export/control.h"
#include "export/device-events.h"
#include "export/export.h"
#include "export/pulse.h"
#include "export/reload.h"
#include "export/report.h"

struct server_options {
	const char *exports;            /* folder of LABEL.conf */
	const char *control;            /* path of the control socket, or NULL */
	bool control_own_user;          /* its own user may change things there, besides root */
	const char *trusted_user;       /* or NULL */
	bool confine;                   /* sandbox.h */
};

/* Everything that lives as long as the process. */
struct server {
	const struct server_options *options;
	struct export_settings *settings;
	struct export export;
	struct admission admission;
	struct census census;
	struct pulse pulse;
	struct device_events events;
	struct reload reload;
	struct control control;
	sd_event *event;
	sd_event_source *idle;          /* ends an export without clients; NULL: not running */
	enum export_state state;
	char state_reason[128];         /* why it is not serving */
	bool runs;                      /* everything was started */
	bool leaving;                   /* the process ends once all is drained */
	uint64_t memory;                /* bytes: Memory= at the start */
	uint64_t since;                 /* microseconds, real time */
};

/* Serves until the end.  0, or a negative errno with a sentence. */
int serve(const struct server_options *options, struct export_settings *settings, int listener,
          struct failure *why);

/* Reads the export's file. */
int server_read_settings(const struct server_options *options, const char *label,
                         struct export_settings *ret, struct failure *why);

/* Admits nobody, lets clients finish what is in flight, flushes; control_tell_drained() then.
 * `who`: for the log. */
void server_drain(struct server *server, const char *who);

/* From drained, or draining: then who waits for that is told so, and clients that are still there
 * stay. */
void server_resume(struct server *server, const char *who);

/* Looks at the device: is it still there, the same, as large, as writable?  Acts on what has changed. */
void server_look(struct server *server);

/* IdleTimeout= may have changed, or who is connected. */
void server_look_idle(struct server *server);
