/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS= for `systemctl status`: figures, told when they change, once a second at most. */
#include <inttypes.h>
#include <time.h>

#include "base/notify.h"
#include "negotiator/server.h"

struct server_figures server_figures(const struct server *server)
{
	return (struct server_figures) {
		.n_handshakes = server->n_clients,
		.n_live = server->sources.n_live,
		.n_refused = server->n_refused,
		.n_exports = server->catalogue->n,
		.n_bad_files = server->catalogue->n_bad + server->settings_kept,
	};
}

#define FORMAT "STATUS=%zu export%s, %u client%s in the handshake, %u being served, " \
	       "%" PRIu64 " refused%s"
#define FIGURES(f) (f).n_exports, (f).n_exports == 1 ? "" : "s", (f).n_handshakes, \
	(f).n_handshakes == 1 ? "" : "s", (f).n_live, (f).n_refused, \
	(f).n_bad_files ? "; a file of settings is bad (see the journal), older ones hold" : ""

void server_tell_ready(struct server *server)
{
	server->told = server_figures(server);
	notify("READY=1\n" FORMAT, FIGURES(server->told));
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct server *server = userdata;

	(void) source;
	(void) usec;
	server->told = server_figures(server);
	notify(FORMAT, FIGURES(server->told));
	return 0;
}

static bool has_changed(const struct server *server)
{
	const struct server_figures f = server_figures(server), *told = &server->told;

	return f.n_handshakes != told->n_handshakes || f.n_live != told->n_live ||
	       f.n_refused != told->n_refused || f.n_exports != told->n_exports ||
	       f.n_bad_files != told->n_bad_files;
}

static int after_events(sd_event_source *source, void *userdata)
{
	struct server *server = userdata;
	int armed = SD_EVENT_OFF;

	(void) source;
	(void) sd_event_source_get_enabled(server->status, &armed);
	if (armed != SD_EVENT_OFF || !has_changed(server))
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
