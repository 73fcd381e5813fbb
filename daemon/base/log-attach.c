/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log-attach.h"

#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"

#define AGAIN_USEC USEC_PER_SEC

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void) source, (void) usec, (void) userdata;
	log_tell_lost();
	return 0;
}

/* Whatever the loop did, an entry may have been lost: also the one that tells of others. */
static int after_each_turn(sd_event_source *source, void *userdata)
{
	sd_event_source *again = userdata;

	(void) source;
	if (!log_has_lost() || sd_event_source_get_enabled(again, NULL) != 0)
		return 0;
	(void) sd_event_source_set_time_relative(again, AGAIN_USEC);
	(void) sd_event_source_set_enabled(again, SD_EVENT_ONESHOT);
	return 0;
}

int log_attach(sd_event *event)
{
	sd_event_source *again = NULL, *post = NULL;
	int r = sd_event_add_time_relative(event, &again, CLOCK_MONOTONIC, 0, 0, on_again, NULL);

	if (r >= 0)
		r = sd_event_source_set_enabled(again, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_post(event, &post, after_each_turn, again);
	if (r >= 0)
		r = sd_event_source_set_floating(post, true);
	if (r >= 0)
		r = sd_event_source_set_floating(again, true);
	sd_event_source_unref(post);
	sd_event_source_unref(again);
	return r < 0 ? r : 0;
}
