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
#include "base/refusal-log.h"
#include "export/census.h"
#include "export/conn.h"
#include "export/contexts.h"
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

/* A record that the socket did not take yet. */
struct unsent {
	struct unsent *next;
	size_t len;
	uint8_t record[];
};

/* One negotiator. */
struct link {
	struct link *next;
	struct admission *admission;
	int fd;                         /* SOCK_SEQPACKET, non-blocking; ours */
	sd_event_source *source;
	struct unsent *unsent, **unsent_end;
	unsigned n_unsent;
	struct reservation *reservations;
};

/* One client that is served, as the main thread knows it. */
struct admitted {
	struct admitted *next;
	uint64_t connection;
	uint64_t since;                 /* microseconds, real time */
	char peer[CHANNEL_PEER_MAX + 1];
	const struct conn *conn;        /* the loop's: only what never changes is looked at */
	struct figures seen;            /* in the last census */
};

struct admission {
	struct export *export;
	sd_event *event;                /* borrowed */
	int listener;                   /* SOCK_SEQPACKET, listening; ours */
	sd_event_source *source;
	struct link *links;
	unsigned n_links;
	struct admitted *admitted;
	struct channel_offer offer;
	struct context_list contexts;   /* that come with it */
	uint32_t n_slots;               /* taken: reserved and admitted */
	uint64_t n_connections;         /* given out, as numbers */
	struct refusal_log refusals;
	struct conn_stats gone;         /* of all clients that have left */
	enum reason closed;             /* why nobody is admitted; REASON_NONE */
	const char *closed_sentence;    /* static */
	bool full;                      /* nothing more arrives, whatever was granted */
	bool trusts;                    /* besides root and our own user, `trusted` */
	uid_t trusted;
	void (*on_change)(struct admission *a); /* a slot was taken or given back */
};

int admit_start(struct admission *a, struct export *export, sd_event *event, int listener,
                struct failure *why);
void admit_stop(struct admission *a);

/* From here on every reservation is refused; `sentence` is static. */
void admit_close(struct admission *a, enum reason reason, const char *sentence);
void admit_open(struct admission *a);

/* What is offered, or its contexts, may have changed: if so, tells the negotiators. */
void admit_offer_again(struct admission *a);
/* The same for who is just being answered: its link is not ended, but the answer is false. */
bool admit_offer_to(struct admission *a, struct link *link);

/* NULL if there is no such client. */
struct admitted *admit_find(const struct admission *a, uint64_t connection);
unsigned admit_count(const struct admission *a);

/* All clients since the start, as of the last census. */
struct conn_stats admit_totals(const struct admission *a);

/* Closes all negotiators' connections and takes no others: they wait for the next process. */
void admit_hang_up(struct admission *a);

/* Whether somebody has said something that was not read yet. */
bool admit_is_asked(const struct admission *a);

/* The ring has given a client back: logs, tells the negotiators, frees it. */
void admit_gone(struct admission *a, struct conn *conn);

/* The start failed: tells it to all who wait on the listening socket. */
void admit_failed(int listener, const char *sentence);

#define LINK_DEAF "it does not read its answers"

/* For link.c.  A false answer, or a sentence, ends the link. */
bool admit_reserve(struct link *link, const struct channel_reserve *reserve);
const char *admit_hand_off(struct link *link, uint64_t token, int *fd);
bool admit_abandon(struct link *link, uint64_t token);
void admit_forget(struct link *link);   /* all its reservations */
void admit_note_refusal(struct link *link, const struct channel_refusal *refusal);

/* offer.c */
struct channel_offer offer_of(const struct export *export, uint64_t number, uint16_t n_contexts);
uint16_t offer_flags(const struct export *export);
/* For this client: by its mode, and by what the access rules let it do. */
uint16_t offer_flags_for(const struct export *export, const struct channel_reserve *reserve);

/* link.c */
int link_accept(struct admission *a);
bool link_introduce(struct link *link);
void link_close(struct link *link, const char *why);
/* What was handed over: NULL for a connected stream socket of a kind that clients come by. */
const char *link_client_fault(int fd);
/* io_uring waits by itself on a blocking socket; on others it would report EAGAIN.  -errno */
int link_make_blocking(int fd);
/* Never waits: what the negotiator does not take now it gets later.  False when that is too much,
 * or it has gone: the caller closes the link. */
bool link_send(struct link *link, const struct channel_record *record);
