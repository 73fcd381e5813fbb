/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things are: the exports' files, and the control sockets of what runs.
 *
 *   RUNTIME/instances/LABEL/control     an export's
 *   RUNTIME/negotiator/control          the negotiator's
 *
 * `nbdctl serve` has the same below its private folder, and its exports' files too.
 */
#pragma once

#include <stdbool.h>
#include <sys/un.h>

#include "base/failure.h"

#define PLACES_SOCKET_SIZE sizeof(((struct sockaddr_un *) NULL)->sun_path)

struct places {
	char *exports;                  /* absolute */
	char *runtime;                  /* absolute */
	bool of_units;                  /* the exports are those that systemd's units serve */
	bool of_serve;                  /* the runtime is the private folder of `nbdctl serve` */
};

/*
 * From the options' values, NULL where not given.  NBD_EXPORT_RUNTIME stands in for the
 * second; the first is, if not given, the runtime's own folder of files when it has one.
 */
int places_find(const char *exports, const char *runtime, struct places *ret,
                struct failure *why);
void places_clear(struct places *p);

/* Paths; -ENAMETOOLONG and a sentence when the label makes it too long for a socket. */
int places_control(const struct places *p, const char *label, char *ret, size_t size,
                   struct failure *why);
int places_negotiator(const struct places *p, char *ret, size_t size, struct failure *why);

/* EXPORTS/LABEL.conf, the caller's to free; NULL without memory. */
char *places_file(const struct places *p, const char *label);
