/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client in the handshake, from accept to hand-off.
 *
 * Reads exactly one option at a time and never a byte beyond it, so that the transmission
 * phase starts in the export with nothing missing; reads no option before the answer to the
 * last one has been sent.  A client that leaves, at whatever byte, is no error.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/text.h"
#include "negotiator/dispatch.h"
#include "negotiator/export-link.h"
#include "negotiator/list.h"
#include "negotiator/payload.h"
#include "negotiator/secure.h"
#include "negotiator/server.h"
#include "negotiator/tls-link.h"

#define HANDSHAKE_MAX_OPTIONS 1000u
#define HANDSHAKE_MAX_BYTES (64u << 20)         /* of options' payload */

enum client_step {
	STEP_FLAGS,                     /* reads the client's flags */
	STEP_HEADER,                    /* reads an option's header */
	STEP_PAYLOAD,                   /* reads its payload, */
	STEP_SKIP,                      /* or passes over it */
	STEP_DISPATCH,                  /* answers */
	STEP_TLS,                       /* asks for nbd-tls */
	STEP_SECURE,                    /* the answer has been sent: gives it the socket */
	STEP_OFFER,                     /* asks for the export's offer */
	STEP_RESERVE,                   /* asks for a reservation */
	STEP_HANDOFF,                   /* the answer has been sent: hands over */
	STEP_WAIT,                      /* for the export or nbd-tls, which will tell */
	STEP_LEAVE,                     /* the end, once everything has been sent */
	N_STEPS,
};

/* What a step came to. */
enum client_progress {
	CLIENT_GOES_ON,                 /* do the next step at once */
	CLIENT_NEEDS_INPUT,
	CLIENT_NEEDS_OUTPUT,            /* when the socket takes more, or simply later */
	CLIENT_WAITS,                   /* for something other than the socket */
	CLIENT_ENDS,
};

struct client {
	struct list node;               /* in server.clients */
	struct list starved;            /* in server.starved, waiting for payload memory */
	struct list of_source;          /* in source.handshakes */
	struct source *source;
	struct server *server;
	struct catalogue *catalogue;    /* our reference; the newest when an option begins */
	int fd;                         /* -1 while nbd-tls has it */
	char peer[PEER_TEXT_SIZE];
	sd_event_source *io;
	sd_event_source *deadline;

	enum client_step step;
	uint8_t head[NBD_OPTION_HEADER_SIZE];   /* flags or header, as far as they have come */
	size_t head_len;
	uint32_t skip_left;
	struct payload payload;
	unsigned n_options;
	uint64_t n_bytes;
	unsigned n_logged;              /* refusals in the log */

	struct secure *secure;          /* NULL in clear */
	struct tls_wait tls_wait;
	bool is_securing;               /* STARTTLS was acknowledged, and TLS is not there yet */
	struct negotiation negotiation;
	size_t sent;                    /* of negotiation.out */

	struct offer *offer;            /* our reference for negotiation.now.offer */
	struct export_wait wait;
	struct reservation reservation;
	struct place *place;            /* at the export, until the hand-off gives it away */
	bool has_passed_stale;          /* it asked once more after an offer that had aged, */
	bool has_passed_gone;           /* after an export that had just gone */

	uint8_t outbox[OUTBOX_SIZE];
};

/* Takes the connected socket `fd`, which is non-blocking, and the caller's reference of its
 * source, in every case. */
void client_start(struct server *server, int fd, struct source *source);

/* Closes it to make room for others. */
void client_evict(struct client *client, int level);

/* Goes on as far as possible.  The client may be gone afterwards. */
void client_advance(struct client *client);

/* Answers whoever waits for an export that there will be none, and ends it. */
void client_shut_down(struct client *client);
void client_free(struct client *client);

/* One line in the log about its end, which comes when CLIENT_ENDS is returned. */
enum client_progress client_end(struct client *client, int level, enum reason reason,
                                const char *fmt, ...) PRINTF(4, 5);

/* What the last option came to, for the operator, in one line; and for the export's log, when
 * it runs and was not asked: in client-log.c. */
void client_log_verdict(struct client *client);
void client_log_close(struct client *client);

/* The option is done: what it held is given back. */
void client_option_done(struct client *client);

/* Who it is, for sentences. */
static inline const char *client_identity(const struct client *client)
{
	return client->secure ? client->secure->shown : "a client without TLS";
}

/* Watches its socket, which is another one behind TLS.  -errno. */
int client_watch(struct client *client);

/* Nothing that was chosen so far holds any more. */
void client_forget_choices(struct client *client);

/* The steps to TLS; in starttls.c. */
enum client_progress client_step_tls(struct client *client);
enum client_progress client_step_secure(struct client *client);
void client_tls_done(struct tls_wait *wait, const struct tls_result *result);

/* The steps that concern the export; in deliver.c. */
enum client_progress client_step_offer(struct client *client);
enum client_progress client_step_reserve(struct client *client);
enum client_progress client_step_handoff(struct client *client);
void client_wait_done(struct export_wait *wait, const struct wait_result *result);
void client_abandon(struct client *client);
