/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The service manager's side: systemd over its D-Bus API.
 *
 * Tells apart that there is no systemd, or no way to reach it, from what it refuses.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "base/failure.h"

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

/* Forgets that it failed; whether there was something to forget does not matter. */
void units_reset_failed(const struct units *u, const char *unit);

/* "active", "inactive", "failed", ...; "" when it cannot be told. */
void units_state(const struct units *u, const char *unit, char *ret, size_t size);

/* The export's units, in a buffer of UNIT_NAME_SIZE. */
#define UNIT_NAME_SIZE 100u
void units_socket_of(const char *label, char *ret);
void units_service_of(const char *label, char *ret);
