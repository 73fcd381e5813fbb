/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/refusal-log.h"

#include <inttypes.h>
#include <time.h>

#include "base/log.h"

static void tell_left_out(const struct peer *source, uint64_t n)
{
	char who[PEER_SOURCE_TEXT_SIZE];
	const struct subject about = { .client = source ? who : NULL };

	if (source)
		peer_format_source(source, who, sizeof who);
	log_event(EVENT_REFUSALS_COUNTED, &about, "%" PRIu64 " more refusals of clients from %s in "
	          "%u s are not listed", n, source ? "there" : "many places",
	          (unsigned) (REFUSALS_USEC / USEC_PER_SEC));
}

static int on_tell(sd_event_source *timer, uint64_t usec, void *userdata)
{
	struct refusal_log *log = userdata;

	(void) timer;
	(void) usec;
	refusals_tell(&log->refusals, tell_left_out);
	return 0;
}

int refusal_log_init(struct refusal_log *log, sd_event *event, struct failure *why)
{
	int r;

	log->event = event;
	r = sd_event_add_time_relative(event, &log->timer, CLOCK_MONOTONIC, 0, 0, on_tell, log);
	if (r >= 0)
		r = sd_event_source_set_enabled(log->timer, SD_EVENT_OFF);
	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}

void refusal_log_end(struct refusal_log *log)
{
	log->timer = sd_event_source_disable_unref(log->timer);
	refusals_tell(&log->refusals, tell_left_out);
}

bool refusal_log_may_list(struct refusal_log *log, const struct peer *source)
{
	uint64_t now = 0, due = refusals_due(&log->refusals);
	bool may;

	(void) sd_event_now(log->event, CLOCK_MONOTONIC, &now);
	may = refusals_may_list(&log->refusals, source, now);
	if (due == UINT64_MAX) {
		(void) sd_event_source_set_time(log->timer, refusals_due(&log->refusals));
		(void) sd_event_source_set_enabled(log->timer, SD_EVENT_ONESHOT);
	}
	return may;
}
