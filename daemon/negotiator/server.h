/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all clients of the negotiator share, and the sockets they come from.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "negotiator/catalogue.h"
#include "negotiator/list.h"
#include "negotiator/payload.h"

#define SERVER_MAX_CLIENTS 1024u        /* in the handshake at once */
#define SERVER_MAX_LISTENERS 64u

struct server {
	sd_event *event;
	struct catalogue catalogue;
	uint64_t handshake_timeout;     /* microseconds */
	uint64_t start_timeout;

	struct list clients;
	unsigned n_clients;
	unsigned max_clients;           /* SERVER_MAX_CLIENTS, or what descriptors allow */

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
};

/* Creates the links to the exports and the timers; accepts nobody yet. */
int server_open(struct server *server, struct failure *why);

/* Starts to accept from server->listeners. */
int server_listen(struct server *server, struct failure *why);

/* Stops accepting, and answers and ends all clients. */
void server_close(struct server *server);

/* Payload memory has been given back: who waits for it may try again. */
void server_feed(struct server *server);
