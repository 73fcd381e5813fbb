/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all clients of the negotiator share, and the sockets they come from.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/clock.h"
#include "base/failure.h"
#include "base/negotiator-settings.h"
#include "base/refusal-log.h"
#include "negotiator/catalogue.h"
#include "negotiator/list.h"
#include "negotiator/payload.h"
#include "negotiator/sources.h"
#include "negotiator/tls-link.h"

#define SERVER_MAX_LISTENERS 64u
#define SERVER_ANEW 75          /* EX_TEMPFAIL; also in nbd-negotiator.service */

/* Where settings come from. */
struct server_files {
	char *exports;                  /* absolute paths */
	char *config;                   /* NULL: there is none */
	enum tls_policy tls;            /* from the command line; unset: the file tells */
	uint32_t start_timeout;         /* seconds, from the command line; 0: the file tells */
	uint32_t handshake_timeout;
	enum client_certificate client_certificate;     /* likewise */
	bool readable;                  /* still, inside the sandbox */
	bool wanted_anew;               /* not all of them: who starts us next reads them */
};

/* What STATUS= tells. */
struct server_figures {
	unsigned n_handshakes;
	unsigned n_live;
	uint64_t n_refused;
	size_t n_exports;
	size_t n_bad_files;
};

struct server {
	sd_event *event;
	struct server_files files;
	struct negotiator_settings settings;
	struct catalogue *catalogue;    /* the newest */
	struct tls_link tls;
	bool settings_kept;             /* negotiator.conf, or the whole folder, could not be read again */

	struct list clients;
	unsigned n_clients;             /* all of them are in the handshake */
	unsigned most_descriptors;      /* RLIMIT_NOFILE */
	struct sources sources;
	uint64_t n_refused;             /* since the start */
	uint64_t started;               /* CLOCK_REALTIME, microseconds */

	struct payload_budget budget;
	struct list starved;            /* clients that wait for the budget */
	sd_event_source *feed;          /* looks at them again */

	int listeners[SERVER_MAX_LISTENERS];
	sd_event_source *accepting[SERVER_MAX_LISTENERS];
	unsigned n_listeners;
	sd_event_source *resume;        /* accepting, after a pause */
	bool big_buffers;               /* the kernel allows large socket buffers */
	uint64_t refused_since;         /* clients turned away that the log has not told */
	uint64_t next_log;              /* when it may be told again; CLOCK_MONOTONIC */

	struct server_figures told;     /* by STATUS= */

	struct refusal_log refusals;
};

/* Prepares what needs no settings. */
int server_open(struct server *server, struct failure *why);

/* Starts to accept from server->listeners. */
int server_listen(struct server *server, struct failure *why);

/* Stops accepting, and answers and ends all clients. */
void server_close(struct server *server);

/* Payload memory has been given back: who waits for it may try again. */
void server_feed(struct server *server);

/* Takes the connected socket `fd`: starts a client, or turns it away; in admission.c. */
void server_admit(struct server *server, int fd);

/* Clients that may be in the handshake at once: MaxHandshakes=, or what descriptors allow. */
unsigned server_max_handshakes(const struct server *server);

/* Reads all files, in reload.c.  On failure everything is as it was. */
int server_read_files(struct server *server, struct failure *why);

/* The same for a server that runs: tells the service manager, and logs what came of it.  Where the
 * sandbox keeps the files from being read it ends instead, to be started again: exit status
 * SERVER_ANEW. */
int server_reload(struct server *server, struct failure *why);

/* Keeps STATUS= true from now on, in status.c. */
int server_watch_status(struct server *server, struct failure *why);
struct server_figures server_figures(const struct server *server);
void server_tell_ready(struct server *server);

static inline uint64_t server_handshake_usec(const struct server *server)
{
	return server->settings.handshake_timeout * USEC_PER_SEC;
}
