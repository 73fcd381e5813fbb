/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATUS= for `systemctl status`: figures, told when they change, once a second at most. */
#include <stdio.h>

#include "base/deferred.h"
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

static void tell(void *userdata)
{
	struct server *server = userdata;
	char text[256];

	describe(server, text, sizeof text);
	server->told = server->figures;
	notify("STATUS=%s", text);
}

static bool has_changed(void *userdata)
{
	const struct server *server = userdata;
	const struct server_figures *now = &server->figures, *told = &server->told;

	return now->n_sessions != told->n_sessions || now->n_handshakes != told->n_handshakes ||
	       now->keys_kept != told->keys_kept;
}

int server_watch_status(struct server *server, struct failure *why)
{
	int r = deferred_add(server->event, &(struct deferred) {
		.is_due = has_changed, .act = tell, .userdata = server,
	});

	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}
