/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the service manager is told while the export runs: STATUS=, the watchdog, and that
 * a stop takes longer.
 *
 * Every few seconds, as long as anything goes on, the loops are asked (census.h).  When all have
 * answered the watchdog is fed; a loop that only waits for its device counts as alive, for
 * killing the process would not help the device.  I/O that has not ended for ten seconds is told
 * once, and stays in STATUS= until it ends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "export/report.h"

struct server;

struct pulse {
	sd_event_source *timer;
	uint64_t watchdog;              /* microseconds between two feeds; 0: nobody waits for it */
	bool deaf_told;                 /* that a loop does not answer */
	uint64_t stuck_since;           /* microseconds, real time; 0: the device answers */
	char said[REPORT_SIZE];         /* the last STATUS= */
};

int pulse_start(struct server *server, struct failure *why);
void pulse_stop(struct pulse *pulse);

/* Something has changed that STATUS= tells. */
void pulse_soon(struct server *server);

/* Sends STATUS= if it is new, behind what is in `first`. */
void pulse_report(struct server *server, const char *first);

/* A stop is under way, and takes its time. */
void pulse_extend(struct server *server);

/* For the census: all loops have answered. */
void pulse_round(struct server *server);
