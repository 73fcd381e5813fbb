/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One negotiation as data: options in, reply bytes out, and what should happen next.
 *
 * Nothing here touches a descriptor.  A handler that needs something it does not have (an
 * export's offer, a reservation, room for more replies) says so with its result and is called
 * again, with the same payload, when `now` holds it.  So every option's rules stand in one
 * function, and tests drive them without sockets.
 *
 * To add an option: a decoder in wire/option.c, a handler, and a row in dispatch.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/emit.h"
#include "base/identity.h"
#include "base/peer.h"
#include "negotiator/access.h"
#include "negotiator/catalogue.h"
#include "negotiator/offer.h"
#include "negotiator/refusal.h"
#include "wire/channel.h"
#include "wire/option-reply.h"
#include "wire/option.h"

/* Bytes of replies that wait for a client to read them; several of the longest. */
#define OUTBOX_SIZE (4u * OPTION_REPLY_MAX)

enum next {
	NEXT_OPTION,            /* answered: read another option */
	NEXT_FLUSH,             /* call again when `out` has been sent */
	NEXT_OFFER,             /* call again with now.offer of now.export, or now.refusal */
	NEXT_RESERVE,           /* call again with now.granted, or now.refusal */
	NEXT_TLS,               /* call again with now.has_tls, or now.refusal */
	NEXT_SECURE,            /* answered: TLS begins once all is sent */
	NEXT_HANDOFF,           /* answered: give the client to its export once all is sent */
	NEXT_CLOSE,             /* the end, once all is sent */
};

/* What is to be done with an option's payload, known from its header. */
enum payload_use {
	PAYLOAD_KEEP,           /* the handler reads it */
	PAYLOAD_SKIP,           /* it is passed over, and the handler gets none */
	PAYLOAD_CLOSE,          /* this option ends the connection */
};

/* What the last call decided, for the log.  The sentence is "" when there is nothing to say. */
struct verdict {
	enum nbd_rep error;     /* NBD_REP_ACK: none was sent */
	enum reason reason;     /* why the export side refused, if it did */
	char sentence[CHANNEL_SENTENCE_MAX + 1];
	const struct catalogue_entry *denied;   /* named, but not for this client, */
	struct access access;                   /* which has this there */
};

/* How far the current option has come. */
struct progress {
	const struct catalogue_entry *export;   /* that the option names */
	struct offer *offer;                    /* of it; NULL while not known */
	bool has_tls;                           /* nbd-tls is there */
	bool is_granted;
	struct channel_granted granted;
	struct refusal refusal;
	size_t cursor;                          /* replies sent of a list of them */
	bool is_decoded;                        /* of a metadata option: */
	struct opt_meta_context meta;           /* the queries that are still to be read, */
	uint64_t wanted;                        /* and bit i: offer->contexts[i] was asked for */
};

/* The contexts that SET_META_CONTEXT selected. */
struct chosen_contexts {
	const struct catalogue_entry *export;   /* NULL: none was ever named */
	struct offer *offer;                    /* they are of; with a reference; NULL: none */
	uint16_t n;
	uint32_t ids[NBD_MAX_CONTEXTS];
};

struct negotiation {
	const struct catalogue *catalogue;      /* borrowed */
	struct peer who;
	const struct identity *identity;        /* NULL in clear; borrowed */
	struct emit out;                        /* OUTBOX_SIZE bytes, emptied by the caller */
	struct client_flags flags;
	enum nbd_mode mode;
	struct chosen_contexts chosen;
	struct option_header header;            /* of the current option */
	struct progress now;
	struct verdict verdict;
};

/* A new option has been announced. */
enum payload_use option_begin(struct negotiation *n, struct option_header header);

/* Its payload is here (or was skipped): answers, or says what is missing.  `out` must have
 * been emptied before. */
enum next option_dispatch(struct negotiation *n, struct bytes payload);

/* For the handlers: */

/* Answers with an error and a sentence. */
enum next option_refuse(struct negotiation *n, enum nbd_rep error, const char *fmt, ...)
	PRINTF(3, 4);
enum next option_ack(struct negotiation *n);

/* Ends the connection; the sentence is for the log. */
enum next option_close(struct negotiation *n, const char *fmt, ...) PRINTF(2, 3);

/* What this client may do there. */
static inline struct access option_access(const struct negotiation *n,
                                          const struct catalogue_entry *entry)
{
	return access_of(entry, &n->who, n->identity);
}

/* The export of that name that this client may read, or NULL; which of both it was that there
 * is none, or none for it, only the verdict tells. */
const struct catalogue_entry *option_find_export(struct negotiation *n, struct span name);

/* The answer for a name that option_find_export() has not found. */
enum next option_refuse_unknown(struct negotiation *n, struct span name);

/* The answer to now.refusal. */
enum next option_refuse_for_export(struct negotiation *n);

/* Whether one more reply of any size fits. */
bool option_has_room(const struct negotiation *n);

/* Nothing is selected any more.  Also to be called when the negotiation is over. */
void forget_contexts(struct negotiation *n);                                    /* meta-context.c */

enum next on_info(struct negotiation *n, struct bytes payload);                 /* info.c */
enum next on_go(struct negotiation *n, struct bytes payload);
enum next on_export_name(struct negotiation *n, struct bytes payload);
enum next on_list_meta_context(struct negotiation *n, struct bytes payload);    /* meta-context.c */
enum next on_set_meta_context(struct negotiation *n, struct bytes payload);
