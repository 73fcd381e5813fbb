/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Has the device looked at as soon as the kernel tells of it, or of the disk that it is a part of.
 *
 * A file has no such events, and where they cannot be had (the kernel sends them to networks only
 * that the first user namespace owns) changes are noticed by the look every few seconds.
 */
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "netlink/uevent.h"

struct server;

struct device_events {
	struct uevents uevents;
	sd_event_source *source;        /* NULL: none are heard */
	dev_t device, disk;             /* the same, if it is no partition */
};

/* The main thread.  That there are none is in the log. */
void device_events_start(struct device_events *events, struct server *server);
void device_events_stop(struct device_events *events);
