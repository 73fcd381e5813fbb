/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is to be done some time after something in the event loop has made it necessary, and once
 * for all that happens until then: figures that are told, lost entries of the log that are owned to.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

struct deferred {
	bool (*is_due)(void *userdata); /* asked after each turn of the loop */
	void (*act)(void *userdata);    /* a second later; asked again after it */
	void *userdata;
};

/* Until the loop ends; `what` is copied.  0, or a negative errno. */
int deferred_add(sd_event *event, const struct deferred *what);
