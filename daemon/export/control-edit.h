/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One call that changes bitmaps: what it may say, and the edit that it becomes. */
#pragma once

#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "dirty/tracker.h"
#include "export/control-bitmaps.h"

enum {
	TAKES_NAME = 1,
	TAKES_OTHER = 2,
	TAKES_SOURCES = 4,
	TAKES_OPTIONS = 8,
	MAKES = 16,                     /* a bitmap, and for that perhaps a store */
};

struct edit_method {
	const char *name;
	enum edit_kind kind;
	unsigned takes;
	const char *done;               /* for the log; NULL: it changes no bitmap */
};

struct edit_call {
	struct bitmap_call call;
	const struct edit_method *method;
	struct edit edit;
	char **sources;
	sd_event_source *closing;       /* clients are being closed; it waits for them */
	uint64_t closing_until;         /* monotonic nanoseconds */
};

/* What the message says, by call->method.  An error for sd-bus. */
int edit_call_read(struct edit_call *call, sd_bus_message *m, sd_bus_error *error);
