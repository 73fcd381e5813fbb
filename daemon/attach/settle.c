/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hears udev's events on an event loop of its own. */
#include "attach/settle.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-device.h>
#include <systemd/sd-event.h>

#include "attach/device.h"
#include "base/attr.h"
#include "base/clock.h"

struct settle {
	sd_event *event;
	sd_device_monitor *monitor;
	int index;
	uint64_t size;
	bool heard;                     /* of the device, with its size */
};

static int on_event(sd_device_monitor *monitor, sd_device *device, void *userdata)
{
	struct settle *s = userdata;
	char wanted[16];
	const char *name;
	struct nbd_state state;

	(void) monitor;
	(void) snprintf(wanted, sizeof wanted, "nbd%d", s->index);
	if (sd_device_get_sysname(device, &name) >= 0 && strcmp(name, wanted) == 0 &&
	    nbd_state_read(SYS_BLOCK, s->index, &state) && state.size == s->size)
		s->heard = true;
	return 0;
}

int settle_start(struct settle **ret, struct failure *why)
{
	struct settle *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return fail(why, ENOMEM, "cannot wait for a device");
	r = sd_event_new(&s->event);
	if (r >= 0)
		r = sd_device_monitor_new(&s->monitor);
	if (r >= 0)
		r = sd_device_monitor_filter_add_match_subsystem_devtype(s->monitor, "block",
		                                                         "disk");
	if (r >= 0)
		r = sd_device_monitor_attach_event(s->monitor, s->event);
	if (r >= 0)
		r = sd_device_monitor_start(s->monitor, on_event, s);
	if (r < 0) {
		settle_stop(s);
		return fail(why, -r, "cannot hear of devices from udev");
	}
	*ret = s;
	return 0;
}

void settle_stop(struct settle *s)
{
	if (!s)
		return;
	sd_device_monitor_unref(s->monitor);
	sd_event_unref(s->event);
	free(s);
}

static bool has_size(int index, uint64_t size)
{
	struct nbd_state state;

	return nbd_state_read(SYS_BLOCK, index, &state) ? state.size == size : size == 0;
}

static int late(const struct settle *s, struct failure *why)
{
	if (s->size == 0)
		return fail_plain(why, ETIMEDOUT, "/dev/nbd%d is disconnected, but stays until it is "
		                  "closed by who has it open", s->index);
	return fail_plain(why, ETIMEDOUT, "/dev/nbd%d did not get its size of %llu bytes in time",
	                  s->index, (unsigned long long) s->size);
}

static int wait_until_heard(struct settle *s, uint64_t patience, struct failure *why)
{
	uint64_t until = monotonic_us() + patience;

	while (!s->heard) {
		uint64_t now = monotonic_us();
		int r = now < until ? sd_event_run(s->event, until - now) : -ETIMEDOUT;

		if (r == -EINTR)
			continue;
		if (r == -ETIMEDOUT)
			return late(s, why);
		if (r < 0)
			return fail(why, -r, "cannot hear of devices from udev");
	}
	return 0;
}

int settle_wait(struct settle *s, int index, uint64_t size, uint64_t patience, struct failure *why)
{
	bool udev_runs = access("/run/udev/control", F_OK) == 0;

	s->index = index;
	s->size = size;
	s->heard = !udev_runs && has_size(index, size);
	return wait_until_heard(s, patience, why);
}

int settle_wait_gone(struct settle *s, int index, uint64_t patience, struct failure *why)
{
	s->index = index;
	s->size = 0;
	s->heard = has_size(index, 0);
	return wait_until_heard(s, patience, why);
}
