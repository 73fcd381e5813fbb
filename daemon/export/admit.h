/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is let in: the export's end of the channel (wire/channel.h).
 *
 * Runs in the main thread, on sd-event.  Each negotiator that connects is told the offer and
 * who is connected.  It reserves a slot for a client, which is granted with a token for ten
 * seconds, and hands the client's socket over; from there on the client is the ring's, and comes
 * back when it is gone.  A negotiator is trusted with nothing: a record that is wrong ends
 * its connection, tokens are random and good for the one that asked, and what is handed over must
 * be one connected stream socket.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "export/conn.h"
#include "wire/channel.h"

struct admission;

/* A slot that is kept for a client, or was until it expired. */
struct reservation {
	struct reservation *next;
	struct link *link;
	uint32_t request;
	uint64_t token;
	bool expired;                   /* its slot is free again; remembered to be refused */
	sd_event_source *timer;
	struct conn *conn;              /* all but its socket; NULL once expired */
};

/* One negotiator. */
struct link {
	struct link *next;
	struct admission *admission;
	int fd;                         /* SOCK_SEQPACKET, non-blocking; ours */
	sd_event_source *source;
	struct reservation *reservations;
};

/* One client that is served, as the main thread knows it. */
struct admitted {
	struct admitted *next;
	uint64_t connection;
	char peer[CHANNEL_PEER_MAX + 1];
};

struct admission {
	struct export *export;
	sd_event *event;                /* borrowed */
	int listener;                   /* SOCK_SEQPACKET, listening; ours */
	sd_event_source *source;
	struct link *links;
	struct admitted *admitted;
	struct channel_offer offer;
	uint32_t n_slots;               /* taken: reserved and admitted */
	uint64_t n_connections;         /* given out, as numbers */
	bool draining;
};

int admit_start(struct admission *a, struct export *export, sd_event *event, int listener,
                struct failure *why);
void admit_stop(struct admission *a);

/* From here on every reservation is refused. */
void admit_drain(struct admission *a);

/* The ring has given a client back: logs, tells the negotiators, frees it. */
void admit_gone(struct admission *a, struct conn *conn);

/* The start failed: tells it to all who wait on the listening socket. */
void admit_failed(int listener, const char *sentence);

/* For link.c.  A false answer ends the link. */
bool admit_reserve(struct link *link, const struct channel_reserve *reserve);
bool admit_hand_off(struct link *link, uint64_t token, int *fd);
bool admit_abandon(struct link *link, uint64_t token);
void admit_forget(struct link *link);   /* all its reservations */

/* link.c */
int link_accept(struct admission *a);
void link_close(struct link *link, const char *why);
/* False, and the link is marked to be closed, when the negotiator does not take it. */
bool link_send(struct link *link, const struct channel_record *record);
