/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/deferred.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define DELAY USEC_PER_SEC

struct pending {
	struct deferred what;
	sd_event_source *timer;         /* borrowed: it lives as long as the loop */
};

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	const struct pending *pending = userdata;

	(void) source, (void) usec;
	pending->what.act(pending->what.userdata);
	return 0;
}

static int after_turn(sd_event_source *source, void *userdata)
{
	const struct pending *pending = userdata;

	(void) source;
	if (sd_event_source_get_enabled(pending->timer, NULL) != SD_EVENT_OFF ||
	    !pending->what.is_due(pending->what.userdata))
		return 0;
	(void) sd_event_source_set_time_relative(pending->timer, DELAY);
	(void) sd_event_source_set_enabled(pending->timer, SD_EVENT_ONESHOT);
	return 0;
}

/* Both sources stay with the loop, and the one that goes last takes `pending` along. */
static int keep(sd_event_source *timer, sd_event_source *post)
{
	int r = sd_event_source_set_enabled(timer, SD_EVENT_OFF);

	if (r >= 0)
		r = sd_event_source_set_floating(timer, true);
	return r < 0 ? r : sd_event_source_set_floating(post, true);
}

int deferred_add(sd_event *event, const struct deferred *what)
{
	struct pending *pending = malloc(sizeof *pending);
	sd_event_source *post = NULL;
	int r;

	if (!pending)
		return -ENOMEM;
	*pending = (struct pending) { .what = *what };
	r = sd_event_add_time_relative(event, &pending->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
	                               pending);
	if (r < 0) {
		free(pending);
		return r;
	}
	(void) sd_event_source_set_destroy_callback(pending->timer, free);
	r = sd_event_add_post(event, &post, after_turn, pending);
	if (r >= 0)
		r = keep(pending->timer, post);
	sd_event_source_unref(post);
	sd_event_source_unref(pending->timer);
	return r < 0 ? r : 0;
}
