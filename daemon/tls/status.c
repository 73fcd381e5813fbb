/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS= for `systemctl status`: figures, told when they change, once a second at most. */
#include <stdio.h>
#include <time.h>

#include "base/notify.h"
#include "tls/server.h"

static void describe(const struct server *server, char *ret, size_t size)
{
	const struct server_figures *f = &server->figures;
	char keys[96];

	credentials_describe(server->credentials, keys, sizeof keys);
	snprintf(ret, size, "%u session%s, %u in the handshake, %s%s", f->n_sessions,
	         f->n_sessions == 1 ? "" : "s", f->n_handshakes, keys,
	         f->keys_kept ? "; newer keys are bad (see the journal)" : "");
}

void server_tell_ready(struct server *server)
{
	char text[256];

	describe(server, text, sizeof text);
	server->told = server->figures;
	notify("READY=1\nSTATUS=%s", text);
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct server *server = userdata;
	char text[256];

	(void) source;
	(void) usec;
	describe(server, text, sizeof text);
	server->told = server->figures;
	notify("STATUS=%s", text);
	return 0;
}

static int after_events(sd_event_source *source, void *userdata)
{
	struct server *server = userdata;
	const struct server_figures *now = &server->figures, *told = &server->told;
	int armed = SD_EVENT_OFF;

	(void) source;
	(void) sd_event_source_get_enabled(server->status, &armed);
	if (armed != SD_EVENT_OFF ||
	    (now->n_sessions == told->n_sessions && now->n_handshakes == told->n_handshakes &&
	     now->keys_kept == told->keys_kept))
		return 0;
	(void) sd_event_source_set_time_relative(server->status, USEC_PER_SEC);
	(void) sd_event_source_set_enabled(server->status, SD_EVENT_ONESHOT);
	return 0;
}

int server_watch_status(struct server *server, struct failure *why)
{
	int r = sd_event_add_time_relative(server->event, &server->status, CLOCK_MONOTONIC, 0, 0,
	                                   on_status, server);

	if (r >= 0)
		r = sd_event_source_set_enabled(server->status, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_post(server->event, &server->after_events, after_events, server);
	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}
