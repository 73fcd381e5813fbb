/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link to nbd-tls: its channel (wire/tls-channel.h), and the clients that wait there.
 *
 * Connecting starts nbd-tls (a service manager holds the listening socket), so it happens only when
 * a client asks for TLS that the settings allow.  Nothing here blocks.  nbd-tls has keys, and not
 * our memory: what it sends is checked, and a record that breaks the protocol ends the
 * connection.  Sessions do not depend on it, only handshakes.
 *
 * What cannot be had at once is waited for with a struct tls_wait, whose result always comes later
 * from the event loop, never from inside the call that asked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/failure.h"
#include "negotiator/list.h"
#include "negotiator/refusal.h"
#include "negotiator/secure.h"

enum tls_answer {
	TLS_LINK_DONE,
	TLS_LINK_WAIT,                  /* the wait has been queued: its result will come */
	TLS_LINK_REFUSED,               /* with a refusal */
};

enum tls_outcome {
	TLS_ASK_AGAIN,                  /* what was missing may be here now */
	TLS_SESSION,                    /* the handshake is done */
	TLS_REFUSED,                    /* nbd-tls, or this negotiator, cannot; or it has failed */
};

struct tls_result {
	enum tls_outcome outcome;
	struct secure *secure;          /* of TLS_SESSION, with the plain end: the receiver's */
	int fd;
	const struct refusal *refusal;  /* of TLS_REFUSED */
};

/* Part of who waits, who may vanish at any time: tls_wait_cancel(). */
struct tls_wait {
	struct list node;               /* in tls_link.waits */
	struct tls_link *link;          /* while it waits */
	uint32_t request;               /* of a START that was sent; else 0 */
	bool for_room;                  /* for the channel to take another record */
	uint64_t deadline;              /* CLOCK_MONOTONIC, microseconds */
	void (*done)(struct tls_wait *wait, const struct tls_result *result);
};

void tls_wait_init(struct tls_wait *wait,
                   void (*done)(struct tls_wait *wait, const struct tls_result *result));

/* Tells nbd-tls too that the client has been given up. */
void tls_wait_cancel(struct tls_wait *wait);

enum tls_link_state {
	TLS_LINK_IDLE,                  /* not connected */
	TLS_LINK_STARTING,              /* connected, and nothing heard yet */
	TLS_LINK_READY,
	TLS_LINK_ENDED,                 /* a record could not be sent: the end is to be read */
};

struct tls_link {
	char *path;                     /* NULL: there is no nbd-tls */
	sd_event *event;                /* borrowed */
	uint64_t start_timeout;         /* microseconds */

	enum tls_link_state state;
	int fd;
	sd_event_source *io;
	sd_event_source *timer;
	uint8_t can;                    /* TLS_CAN_*, in TLS_LINK_READY */
	bool has_verified;              /* TLS_CAN_VERIFY was among them, at some time */
	uint32_t last_request;
	struct list waits;              /* oldest first */
	struct refusal failure;         /* why it could not be reached, told again until */
	uint64_t failed_until;          /* this time */
};

/* `path` (NULL: none) is copied. */
int tls_link_init(struct tls_link *link, sd_event *event, const char *path, struct failure *why);
void tls_link_clear(struct tls_link *link);

/* Whether nbd-tls is there and has keys; connects if need be. */
enum tls_answer tls_link_ready(struct tls_link *link, struct tls_wait *wait,
                               struct refusal *ret_refusal);

/* Gives a client's socket away, for a handshake of at most `patience` microseconds.
 * TLS_LINK_DONE: it has been sent, ours is only to be closed, and the result will come.  TLS_LINK_WAIT: to be asked
 * again when there is room.  `start` has all but its request and deadline. */
enum tls_answer tls_link_start(struct tls_link *link, struct tls_wait *wait,
                               struct tls_start *start, uint64_t patience, int fd,
                               struct refusal *ret_refusal);
