/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link to one export: its channel's socket, its offer, and the clients that wait for it.
 *
 * Connecting starts the export (a service manager holds the listening socket), so it happens
 * only when a client needs the offer and only after the access rules said yes; nothing here
 * blocks.  The export is trusted with its device, but not with our memory: what it sends is
 * checked, and a record that breaks the protocol ends the connection.
 *
 * Callers ask for one thing at a time; what cannot be had at once is waited for with a
 * struct export_wait, whose result always comes later from the event loop, never from
 * inside the call that asked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "negotiator/dispatch.h"
#include "negotiator/list.h"
#include "negotiator/live.h"
#include "negotiator/offer.h"
#include "wire/channel.h"

struct export_link;
struct export_wait;

enum link_answer {
	LINK_DONE,                      /* here it is, or it has been sent */
	LINK_WAIT,                      /* the wait has been queued: its result will come */
	LINK_REFUSED,                   /* with a refusal */
};

/* How a wait ends. */
struct wait_result {
	enum {
		WAIT_ASK_AGAIN,                         /* what was missing may be here now */
		WAIT_GRANTED,
		WAIT_REFUSED,
	} outcome;
	const struct channel_granted *granted;
	const struct refusal *refusal;
};

/* Part of who waits, who may vanish at any time: export_wait_cancel(). */
struct export_wait {
	struct list node;               /* in export_link.waits */
	uint32_t request;               /* of a RESERVE that was sent; else 0 */
	bool for_room;                  /* for the channel to take another record */
	uint64_t deadline;              /* CLOCK_MONOTONIC, microseconds */
	void (*done)(struct export_wait *wait, const struct wait_result *result);
};

void export_wait_init(struct export_wait *wait,
                      void (*done)(struct export_wait *wait, const struct wait_result *result));
void export_wait_cancel(struct export_wait *wait);

enum link_state {
	LINK_IDLE,                      /* not connected */
	LINK_BUSY,                      /* its queue of connections was full: trying again */
	LINK_STARTING,                  /* connected, no complete offer yet */
	LINK_READY,
	LINK_ENDED,                     /* a record could not be sent: the end is to be read */
};

struct export_link {
	unsigned n_refs;
	char *label;
	char *title;                    /* the export's name, printable and shortened */
	sd_event *event;
	uint64_t start_timeout;         /* microseconds, for every wait */

	enum link_state state;
	int fd;
	sd_event_source *io;
	sd_event_source *timer;
	uint64_t retry_at;              /* in LINK_BUSY; CLOCK_MONOTONIC, microseconds */
	uint64_t generation;            /* counts connections: tokens are good for one */
	uint32_t last_request;
	struct offer *offer;            /* the complete one, or NULL */
	struct offer *incoming;         /* between OFFER and READY */
	struct list waits;              /* oldest first */
	struct places places;           /* of clients there */

	struct refusal failure;         /* why the last start failed, told again until */
	uint64_t failed_until;          /* this time */
};

/* What a RESERVE was granted; it can be used or given back as long as the link lives on. */
struct reservation {
	uint64_t generation;
	uint64_t token;                 /* 0: none */
};

/* NULL and a sentence when memory is short.  `label` and `name` are copied. */
struct export_link *export_link_new(sd_event *event, const char *label, const char *name,
                                    uint64_t start_timeout, struct sources *sources,
                                    struct failure *why);
struct export_link *export_link_ref(struct export_link *link);
void export_link_unref(struct export_link *link);

/* After the files were read again.  -ENOMEM leaves the old name standing. */
int export_link_rename(struct export_link *link, const char *name);

/* The current offer, with a reference that is the caller's; connects if need be. */
enum link_answer export_link_offer(struct export_link *link, struct export_wait *wait,
                                   struct offer **ret_offer, struct refusal *ret_refusal);

/* Sends a RESERVE (its request number is filled in) and waits for the answer. */
enum link_answer export_link_reserve(struct export_link *link, struct export_wait *wait,
                                     struct channel_reserve *reserve,
                                     struct refusal *ret_refusal);

/* Hands over `fd`, which stays the caller's to close. */
enum link_answer export_link_handoff(struct export_link *link, struct export_wait *wait,
                                     const struct reservation *reservation, int fd,
                                     struct refusal *ret_refusal);

/* Gives a reservation back.  One that cannot be sent ends by itself after ten seconds. */
void export_link_abandon(struct export_link *link, const struct reservation *reservation);

/* Lets a running export note in its log that somebody was refused without asking it.  An
 * export that is not connected, or has no room for the record, is not told. */
void export_link_tell_refusal(struct export_link *link, enum reason reason, const char *peer,
                              const char *sentence);

/* Between export-link.c and link-records.c: */

/* One record that came.  NULL, or how it broke the protocol. */
const char *export_link_record(struct export_link *link, struct bytes record);

/* The end of a connection; everyone who waits is refused.  `is_failed_start`: the next ones
 * too, for a second. */
void export_link_drop(struct export_link *link, const struct refusal *refusal,
                      bool is_failed_start);

/* Ends all waits for an offer: it is here. */
void export_link_wake(struct export_link *link);
