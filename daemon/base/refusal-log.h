/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which refusals of clients a program's log lists: base/refusals.h with a timer that tells what
 * was left out.
 */
#pragma once

#include <systemd/sd-event.h>

#include "base/failure.h"
#include "base/refusals.h"

struct refusal_log {
	sd_event *event;                /* borrowed */
	struct refusals refusals;
	sd_event_source *timer;
};

int refusal_log_init(struct refusal_log *log, sd_event *event, struct failure *why);

/* Tells what was left out so far.  A log that was not begun is fine. */
void refusal_log_end(struct refusal_log *log);

/* Whether one more may be listed of this source (peer_source()); what may not is counted. */
bool refusal_log_may_list(struct refusal_log *log, const struct peer *source);
