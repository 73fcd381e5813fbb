/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/device-events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/log.h"
#include "export/server.h"

#define AT_ONCE 64u                     /* events, before others have their turn */

/* The disk of a partition. */
static dev_t disk_of(dev_t device)
{
	unsigned ma, mi;
	char path[80];
	FILE *file;
	int n = 0;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", major(device),
	                minor(device));
	if (access(path, F_OK) < 0)
		return device;
	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", major(device),
	                minor(device));
	file = fopen(path, "re");
	if (file) {
		n = fscanf(file, "%u:%u", &ma, &mi);
		(void) fclose(file);
	}
	return n == 2 ? makedev(ma, mi) : device;
}

static bool concerns_us(const struct device_events *events, const struct uevent *event)
{
	return event->is_block && (event->device == events->device || event->device == events->disk);
}

/* Whether there is a reason to look; r of the last event. */
static bool take_events(struct device_events *events, int *ret)
{
	struct uevent event;
	bool look = false;
	int r = 1;

	for (unsigned n = 0; n < AT_ONCE && r > 0; n++) {
		r = uevents_next(&events->uevents, &event);
		if (r <= 0 || !concerns_us(events, &event))
			continue;
		log_debug("the kernel tells of its device: %s", event.action);
		look = true;
	}
	*ret = r;
	return look;
}

static int on_event(sd_event_source *source, int fd, uint32_t what, void *userdata)
{
	struct server *server = userdata;
	int r;

	(void) source;
	(void) fd;
	(void) what;
	if (take_events(&server->events, &r) || r < 0)
		server_look(server);
	if (r < 0 && r != -ENOBUFS) {
		log_warning("the kernel's events about devices are heard no more (%s): the device is "
		            "looked at every few seconds", strerror(-r));
		device_events_stop(&server->events);
	}
	return 0;
}

void device_events_start(struct device_events *events, struct server *server)
{
	struct failure why = { 0 };
	struct stat st;
	int r;

	*events = (struct device_events) { .uevents.fd = -1 };
	if (!server->export.device.is_block || fstat(server->export.device.fd, &st) < 0)
		return;
	events->device = st.st_rdev;
	events->disk = disk_of(st.st_rdev);
	r = uevents_open(&events->uevents, &why);
	if (r == 0) {
		r = sd_event_add_io(server->event, &events->source, events->uevents.fd, EPOLLIN,
		                    on_event, server);
		if (r < 0)
			(void) fail(&why, -r, "cannot wait for the kernel's events");
	}
	if (r == 0)
		return;
	log_info("%s; changes of the device are noticed within seconds all the same", why.text);
	device_events_stop(events);
}

void device_events_stop(struct device_events *events)
{
	events->source = sd_event_source_disable_unref(events->source);
	uevents_close(&events->uevents);
}
