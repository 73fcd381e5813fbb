/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Says in the journal, once a day, what expires soon: nobody else would before clients do. */
#include <stdio.h>
#include <time.h>

#include "base/attr.h"
#include "base/log.h"
#include "tls/server.h"

#define DAY (24 * 3600)                 /* seconds */
#define SOON (30 * DAY)

static void warn(const char *what, time_t ends, const char *then)
{
	time_t now = time(NULL);
	long days = (long) ((ends - now) / DAY);
	char date[32] = "";
	struct tm tm;

	if (!ends || ends - now >= SOON)
		return;
	if (gmtime_r(&ends, &tm))
		(void) strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &tm);
	if (ends <= now)
		log_event(EVENT_TLS_EXPIRES, NULL, "%s expired on %s: %s", what, date, then);
	else
		log_event(EVENT_TLS_EXPIRES, NULL, "%s expires on %s, in %ld day%s: then %s", what, date,
		          days, days == 1 ? "" : "s", then);
}

void server_look_at_expiry(struct server *server)
{
	const struct credentials *c = server->credentials;

	warn("the server's certificate", c->not_after, "clients refuse it");
	warn("the list of revoked certificates", c->crl_ends,
	     "the certificates of all clients are refused");
	(void) sd_event_source_set_time_relative(server->expiring, DAY * USEC_PER_SEC);
	(void) sd_event_source_set_enabled(server->expiring, SD_EVENT_ONESHOT);
}

static int on_day(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void) source;
	(void) usec;
	server_look_at_expiry(userdata);
	return 0;
}

int server_watch_expiry(struct server *server, struct failure *why)
{
	int r = sd_event_add_time_relative(server->event, &server->expiring, CLOCK_BOOTTIME,
	                                   DAY * USEC_PER_SEC, 0, on_day, server);

	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}
