/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Before a running export is stopped: its clients are never cut off by surprise.  While there
 * are some it is left alone, unless somebody says --drain or --force.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "base/failure.h"

struct quiesce_options {
	bool drain;
	uint32_t patience;              /* seconds; 0: as long as it takes */
	bool force;                     /* with drain: when that takes too long */
};

/* For rows of options, "[=SECONDS]"; `into` is the struct. */
int quiesce_parse_drain(const char *value, void *into, struct failure *why);

/*
 * 0 when it may be stopped.  `stops`: it will be, so from here on nobody is let in.  On failure
 * it is as before; if it is not, the sentence says so.  `ret_drained`: quiesce_undo() is needed
 * if it is not stopped after all; not where somebody else had drained it before.
 */
int quiesce(const struct quiesce_options *o, sd_bus *bus, const char *label, bool stops,
            bool *ret_drained, struct failure *why);

/* Lets clients in again; a failure is added to what `why` says, or else logged (NULL). */
void quiesce_undo(sd_bus *bus, const char *label, struct failure *why);
