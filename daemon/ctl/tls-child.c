/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-tls beside the others, for --tls: it starts with the exports and stops after them, since
 * their clients' last replies go through it.
 */
#include "ctl/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/attr.h"
#include "base/listen.h"
#include "base/log.h"

static void on_ready(struct child *c)
{
	struct supervisor *s = c->userdata;

	if (s->phase == PHASE_EXPORTS)
		supervisor_exports_step(s);
}

static void on_ended(struct child *c, bool was_ready, const siginfo_t *how)
{
	struct supervisor *s = c->userdata;
	char end[64];

	child_describe_end(how, end, sizeof end);
	if (is_stopping(s)) {
		if (was_ready && how->si_code != CLD_EXITED && !s->killing)
			log_event(EVENT_CHILD_DIED, NULL, "%s %s", c->title, end);
		stopping_step(s);
		return;
	}
	if (s->phase == PHASE_EXPORTS) {
		/* Exit code 1 without READY: it has said why. */
		if (was_ready || how->si_code != CLD_EXITED || how->si_status != 1)
			log_event(EVENT_CHILD_DIED, NULL, "%s %s", c->title, end);
		supervisor_exports_step(s);
		return;
	}
	log_event(EVENT_CHILD_DIED, NULL, "%s %s%s; clients that used TLS are gone, and it starts "
	          "again when the next one asks for it", c->title, end,
	          was_ready ? "" : " before it was ready");
	(void) child_again(c);
}

int tls_child_prepare(struct supervisor *s, struct failure *why)
{
	struct child *c = &s->tls;
	AUTO_FREE char *credentials = NULL;
	int r;

	if (!s->options->tls)
		return 0;
	r = listen_unix(s->runtime->tls, SOCK_SEQPACKET, &s->tls_channel, why);
	if (r < 0)
		return r;
	*c = (struct child) {
		.title = strdup("nbd-tls"),
		.demand = s->tls_channel,
		.userdata = s,
		.ready = on_ready,
		.ended = on_ended,
		.plan = { .notify_socket = s->runtime->notify, .fds = &s->tls_channel, .n_fds = 1,
		          .fd_names = "tls" },
	};
	if (asprintf(&credentials, "--credentials=%s", s->options->tls) < 0)
		credentials = NULL;
	if (!c->title || !credentials)
		return fail(why, ENOMEM, "cannot prepare nbd-tls");

	const char *words[] = { credentials, s->options->debug ? "--debug" : NULL };

	return child_set_argv(c, "nbd-tls", words, ARRAY_LEN(words), why);
}
