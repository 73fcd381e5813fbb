/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The service manager inside `nbdctl serve`.  Its life is a row of phases:
 *
 *   exports start ─► negotiator starts ─► serving ─► negotiator stops ─► exports stop ─► nbd-tls stops
 *   and nbd-tls
 *        └───────────────┴── failure, SIGTERM, Ctrl-C ─────▲
 *
 * Client sockets exist from the second phase to the third, so nobody can connect before
 * every export is known to be good, nor while they finish.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "ctl/child.h"
#include "ctl/client-sockets.h"
#include "ctl/export-list.h"
#include "ctl/runtime.h"
#include "ctl/serve-options.h"

enum phase {
	PHASE_EXPORTS,
	PHASE_NEGOTIATOR,
	PHASE_SERVING,
	PHASE_STOP_NEGOTIATOR,
	PHASE_STOP_EXPORTS,
	PHASE_STOP_TLS,
};

struct served {
	const struct export_settings *settings;
	struct child child;
	int channel;                    /* the listening socket; -1 once it is not served */
};

struct supervisor {
	const struct serve_options *options;    /* borrowed, as are the next two */
	const struct runtime *runtime;
	sd_event *event;
	int notify;                     /* the children's NOTIFY_SOCKET */
	struct served *exports;
	size_t n_exports;
	struct child negotiator;
	struct child tls;               /* without --tls nothing */
	int tls_channel;                /* its listening socket; -1 without it */
	struct client_sockets sockets;
	char *socket_names;             /* LISTEN_FDNAMES */
	enum phase phase;
	int exit_code;
	unsigned n_interrupts;          /* Ctrl-C */
	bool killing;                   /* SIGKILL was sent, and logged */
	sd_event_source *patience;      /* how long a stop may last */
};

/* Serves until it is told to stop, or cannot; everything is gone again then.
 * Returns the exit code; what went wrong has been logged. */
int supervise(const struct serve_options *o, const struct runtime *rt,
              const struct export_list *list);

/* Goes on once every child of the first phase is either ready or ended. */
void supervisor_exports_step(struct supervisor *s);

/* tls-child.c: nbd-tls with its socket, if there is --tls. */
int tls_child_prepare(struct supervisor *s, struct failure *why);

/* stopping.c */

/* Blocks the signals that the event loop takes, before anything is made that they would
 * leave behind. */
void stopping_block_signals(void);
int stopping_watch_signals(struct supervisor *s, struct failure *why);

/* Stops everything, in order, and then the loop; a second call changes nothing. */
void stopping_begin(struct supervisor *s, int exit_code);

/* Goes on with it: a child has ended. */
void stopping_step(struct supervisor *s);

static inline bool is_stopping(const struct supervisor *s)
{
	return s->phase >= PHASE_STOP_NEGOTIATOR;
}
