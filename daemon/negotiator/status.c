/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS= for `systemctl status`: figures, told when they change, once a second at most. */
#include <inttypes.h>

#include "base/deferred.h"
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

static void tell(void *userdata)
{
	struct server *server = userdata;

	server->told = server_figures(server);
	notify(FORMAT, FIGURES(server->told));
}

static bool has_changed(void *userdata)
{
	const struct server *server = userdata;
	const struct server_figures f = server_figures(server), *told = &server->told;

	return f.n_handshakes != told->n_handshakes || f.n_live != told->n_live ||
	       f.n_refused != told->n_refused || f.n_exports != told->n_exports ||
	       f.n_bad_files != told->n_bad_files;
}

int server_watch_status(struct server *server, struct failure *why)
{
	int r = deferred_add(server->event, &(struct deferred) {
		.is_due = has_changed, .act = tell, .userdata = server,
	});

	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}
