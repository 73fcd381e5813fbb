/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One question to many processes, asked of all at once: those that do not answer cost no more
 * time than one of them does, and keep no answer of another from being read.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "ctl/control.h"
#include "ctl/places.h"

/* More than an export needs whose loops do not answer: it waits a second for them, twice. */
#define INQUIRY_PATIENCE UINT64_C(3000000)      /* microseconds, for all together */

struct inquiry {
	struct control_peer peer;
	char socket[PLACES_SOCKET_SIZE];
	const char *method;             /* without arguments; NULL: all properties */

	int result;                     /* 0, or a negative errno.  One that is negative before
	                                 * it was asked is not asked. */
	struct failure why;
	sd_bus_message *reply;

	sd_bus *bus;                    /* while it is under way */
	struct round *round;
};

/* Asks, and waits until all have answered or that time is over. */
void inquire(struct inquiry *all, size_t n, uint64_t patience);

/* Frees the reply. */
void inquiry_clear(struct inquiry *inquiry);
