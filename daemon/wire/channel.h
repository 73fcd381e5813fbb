/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channel between the negotiator and one export: every record, both directions.
 * This file is the trust boundary; what is not here does not cross it.
 *
 *   negotiator (untrusted bytes, no device)
 *        |  one SOCK_SEQPACKET connection per export; one record a datagram
 *   export     (one device, no network listener)
 *
 * After accepting a connection the export sends OFFER, CONTEXT for each context, LIVE for
 * each client it is serving, and READY; and again from OFFER to READY whenever the offer changes.
 * A start that failed sends FAILED and ends.  Then, for each client:
 *
 *   negotiator                       export
 *   RESERVE (request, offer, ...) →
 *                                  ← GRANTED (request, token, ...) or REFUSED (request, ...)
 *   HANDOFF (token) + descriptor  →   or ABANDON (token): the client left meanwhile
 *                                  ← REFUSED (request of the reservation) if it came too late
 *                                  ← GONE (connection)
 *
 * REFUSAL notes a client that the negotiator has refused by itself (no request, no answer),
 * so that the export's log has it, too.
 *
 * Each side treats the other as hostile: version, type, exact length, ranges, strings that
 * are UTF-8 without NUL, and descriptors only where one belongs.
 *
 * A record: u8 version, u8 type, u16 zero, u32 length of the body, body; big-endian.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "wire/nbd.h"
#include "wire/reason.h"

#define CHANNEL_VERSION 1u
#define CHANNEL_RECORD_MAX 6144u        /* bytes; room for every record */
#define CHANNEL_TOKEN_SECONDS 10u       /* how long a GRANTED holds its slot */
#define CHANNEL_PEER_MAX 64u            /* bytes of a peer's address */
#define CHANNEL_IDENTITY_MAX 1024u      /* bytes of a TLS identity */
#define CHANNEL_TLS_MAX 160u            /* bytes of TLS's version and cipher suite */
#define CHANNEL_SENTENCE_MAX 512u       /* bytes of a refusal's sentence */

enum channel_type {
	CHANNEL_OFFER = 1,              /* export to negotiator */
	CHANNEL_CONTEXT = 2,
	CHANNEL_LIVE = 3,
	CHANNEL_READY = 4,
	CHANNEL_FAILED = 5,
	CHANNEL_GRANTED = 6,
	CHANNEL_REFUSED = 7,
	CHANNEL_GONE = 8,
	CHANNEL_RESERVE = 16,           /* negotiator to export */
	CHANNEL_HANDOFF = 17,
	CHANNEL_ABANDON = 18,
	CHANNEL_REFUSAL = 19,
};

/* What the export has to offer now.  A new number whenever anything in it changes. */
struct channel_offer {
	uint64_t number;                /* not zero */
	uint64_t size;                  /* bytes; a multiple of 512, at most INT64_MAX */
	uint16_t flags;                 /* NBD_FLAG_* that hold in every mode: no DF, no
	                                 * BLOCK_STAT_PAYLOAD */
	uint32_t minimum_block;         /* bytes; a power of two, 1 to 64 KiB */
	uint32_t preferred_block;       /* bytes; a power of two, 4096 to 32 MiB, not below the
	                                 * minimum */
	uint32_t maximum_payload;       /* bytes; the preferred block to NBD_MAX_PAYLOAD, and a
	                                 * multiple of the minimum */
	uint16_t n_contexts;            /* CONTEXT records that follow, to NBD_MAX_CONTEXTS */
};

struct channel_context {
	uint32_t id;                    /* stable as long as the context exists */
	struct span name;               /* 1 to NBD_MAX_STRING bytes */
};

/* A client that the export is serving. */
struct channel_live {
	uint64_t connection;
	struct span peer;
};

/* FAILED uses request 0, REFUSED never does. */
struct channel_refused {
	uint32_t request;
	uint32_t reason;                /* enum reason, not REASON_NONE */
	struct span sentence;           /* for the client and the log */
};

#define CHANNEL_RIGHT_READ (1u << 0)
#define CHANNEL_RIGHT_WRITE (1u << 1)

struct channel_reserve {
	uint32_t request;               /* the negotiator's number for the answer; not zero */
	uint64_t offer;                 /* struct channel_offer.number that the client will see */
	uint8_t mode;                   /* enum nbd_mode */
	uint8_t rights;                 /* CHANNEL_RIGHT_* that the access rules grant */
	struct span peer;               /* to CHANNEL_PEER_MAX bytes */
	struct span identity;           /* to CHANNEL_IDENTITY_MAX bytes: what TLS tells, "dn:CN=a";
	                                 * empty where nobody is known */
	uint16_t n_contexts;            /* to NBD_MAX_CONTEXTS; 0 in simple mode */
	uint32_t contexts[NBD_MAX_CONTEXTS];    /* identifiers, each once */
	struct span tls;                /* to CHANNEL_TLS_MAX bytes, "TLS1.3 TLS_AES_..."; empty in
	                                 * clear */
};

struct channel_granted {
	uint32_t request;
	uint64_t token;                 /* random; good for one HANDOFF within ten seconds */
	uint64_t connection;            /* the number of this client in both processes' logs */
	uint64_t size;                  /* bytes; what the client must be told */
	uint16_t flags;                 /* NBD_FLAG_* for this client, DF and all */
};

/* HANDOFF carries exactly one descriptor, a connected stream socket; ABANDON none. */
struct channel_token {
	uint64_t token;
};

struct channel_gone {
	uint64_t connection;
	uint32_t reason;                /* enum reason */
};

/* A client that wanted this export, and was refused without asking it. */
struct channel_refusal {
	uint32_t reason;                /* enum reason, not REASON_NONE */
	struct span peer;               /* to CHANNEL_PEER_MAX bytes */
	struct span sentence;           /* to CHANNEL_SENTENCE_MAX bytes */
};

/* Any record, decoded.  Spans point into the bytes it was decoded from. */
struct channel_record {
	enum channel_type type;
	union {
		struct channel_offer offer;
		struct channel_context context;
		struct channel_live live;
		struct channel_refused refused;         /* and FAILED */
		struct channel_reserve reserve;
		struct channel_granted granted;
		struct channel_token token;             /* HANDOFF, ABANDON */
		struct channel_gone gone;
		struct channel_refusal refusal;
	};
};

/* NULL, or what is wrong with the record in words for the log; *ret is untouched then. */
const char *decode_channel_record(struct bytes in, struct channel_record *ret);

/* Appends the record; CHANNEL_RECORD_MAX bytes hold any.  Sentences and peers that are too
 * long are cut between characters. */
void emit_channel_record(struct emit *out, const struct channel_record *record);

/* Whether a record of this type carries a descriptor. */
static inline bool channel_carries_fd(enum channel_type type)
{
	return type == CHANNEL_HANDOFF;
}
