/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The service manager's side: systemd over its D-Bus API.
 *
 * Tells apart that there is no systemd, or no way to reach it, from what it refuses.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "base/failure.h"

/* Clients come over it; it is the administrator who decides on it. */
#define NEGOTIATOR_SOCKET "nbd-negotiator.socket"
#define NEGOTIATOR_SERVICE "nbd-negotiator.service"

struct units {
	sd_bus *bus;
	bool absent;            /* units_connect() failed since systemd does not run this system */
};

/* By the system bus, or else by systemd's private socket (root).  NBD_EXPORT_SYSTEMD=ADDRESS
 * in the environment is used instead (for tests). */
int units_connect(struct units *ret, struct failure *why);
void units_close(struct units *u);

/* `systemctl daemon-reload`: the generators run, and the units are read again. */
int units_load(const struct units *u, struct failure *why);

/* These wait until the job is done.  A unit that is not loaded is fine for units_stop(). */
int units_start(const struct units *u, const char *unit, struct failure *why);
int units_stop(const struct units *u, const char *unit, struct failure *why);

/* Removes what an administrator has set for this unit: `systemctl set-property`, `edit`.  What
 * was removed is told by log_notice(). */
int units_revert(const struct units *u, const char *unit, struct failure *why);

/* Forgets that it failed; whether there was something to forget does not matter. */
void units_reset_failed(const struct units *u, const char *unit);

/* "active", "inactive", "failed", ...; "" when it cannot be told. */
void units_state(const struct units *u, const char *unit, char *ret, size_t size);

/* A property that is text; "" when it cannot be told.  `interface`: "Unit", "Service". */
void units_text(const struct units *u, const char *unit, const char *interface,
                const char *property, char *ret, size_t size);

/* How often systemd has started this service again by itself, since somebody asked for it; 0 when it
 * cannot be told. */
uint32_t units_restarts(const struct units *u, const char *unit);

/* Whether the machine is being stopped, or started anew; false also when it cannot be told.  For
 * root, and without units_connect(). */
bool units_machine_stops(void);

/* All units of exports that systemd has loaded, active or not. */
struct unit_seen {
	char label[65];                 /* EXPORT_LABEL_MAX */
	bool is_service;                /* else its socket */
	char state[16];                 /* ActiveState */
};

int units_list(const struct units *u, struct unit_seen **ret, size_t *ret_n,
               struct failure *why);

/* The export's units, in a buffer of UNIT_NAME_SIZE. */
#define UNIT_NAME_SIZE 100u
void units_socket_of(const char *label, char *ret);
void units_service_of(const char *label, char *ret);
