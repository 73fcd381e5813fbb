/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can happen, for the journal: each kind of event has a name and a 128-bit id, both
 * fixed for ever, for they are in people's scripts and alerts.  `journalctl EVENT=client-refused`
 * finds one kind; units/nbd-export.catalog explains each (`journalctl -x`).
 *
 * A new event gets a new row in events.c, with an id from `systemd-id128 new`, and an entry
 * in the catalog.
 */
#pragma once

enum event {
	EVENT_NONE,                     /* an entry without a MESSAGE_ID */
	EVENT_CLIENT_ADMITTED,
	EVENT_CLIENT_ENDED,
	EVENT_CLIENT_REFUSED,
	EVENT_CLIENT_HANDED_OVER,
	EVENT_CLIENT_STALLED,
	EVENT_CLIENT_KICKED,
	EVENT_PROTOCOL_VIOLATION,
	EVENT_HANDSHAKE_LIMIT,
	EVENT_ACCEPT_FAILED,
	EVENT_EXPORT_STARTED,
	EVENT_EXPORT_STOPPING,
	EVENT_EXPORT_STOPPED,
	EVENT_EXPORT_IDLE,
	EVENT_EXPORT_FAILED,
	EVENT_EXPORT_UNREACHABLE,
	EVENT_EXPORT_DRAINING,
	EVENT_EXPORT_DRAINED,
	EVENT_EXPORT_RESUMED,
	EVENT_DEVICE_IN_USE,
	EVENT_DEVICE_GONE,
	EVENT_DEVICE_STUCK,
	EVENT_DEVICE_UNSTUCK,
	EVENT_DEVICE_READ_ONLY,
	EVENT_DIRECT_UNAVAILABLE,
	EVENT_IO_URING_UNAVAILABLE,
	EVENT_FLUSH_FAILED,
	EVENT_FLUSH_STILL_FAILED,
	EVENT_FLUSH_CLEARED,
	EVENT_SETTINGS_RELOADED,
	EVENT_SETTINGS_KEPT,
	EVENT_SETTINGS_SKIPPED,
	EVENT_SETTINGS_NEED_RESTART,
	EVENT_NEGOTIATOR_STARTED,
	EVENT_NEGOTIATOR_STOPPED,
	EVENT_NEGOTIATOR_FAILED,
	EVENT_CHANNEL_VIOLATION,
	EVENT_CHANNEL_REFUSED,
	EVENT_CONTROL_DENIED,
	EVENT_CHILD_DIED,
	EVENT_CHILD_LATE,
	N_EVENTS,
};

struct event_kind {
	const char *name;               /* EVENT=, "client-refused" */
	const char *id;                 /* MESSAGE_ID=, 32 hexadecimal digits */
	int level;                      /* syslog's */
};

/* NULL for EVENT_NONE. */
const struct event_kind *event_kind(enum event event);
