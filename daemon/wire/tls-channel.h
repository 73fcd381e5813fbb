/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channel between the negotiator and nbd-tls: every record, both directions.
 * This file is the trust boundary; what is not here does not cross it.
 *
 *   negotiator (untrusted bytes, no keys)
 *        |  one SOCK_SEQPACKET connection; one record a datagram
 *   nbd-tls    (keys, no disk, no listener on a network)
 *
 * After accepting a connection nbd-tls sends HELLO, and again whenever its keys changed.
 * Then, for each client that wants TLS:
 *
 *   negotiator                             nbd-tls
 *   START (request, ...) + descriptor    →          the client's own socket; the sender closes
 *                                                   its copy and touches it no more
 *                                        ←  ESTABLISHED (request, session, ...) + descriptor
 *                                        or FAILED (request, reason, sentence)
 *   CONNECT (request, ...) + descriptor  →          the same for a socket to a server, of which
 *                                                   nbd-tls is the client: only from who attaches
 *                                                   exports, root or nbd-tls's own user
 *   CANCEL (request)                     →          the client is given up: no answer follows,
 *                                                   but one that was on its way may arrive
 *                                        ←  ENDED (session, reason)
 *
 * The descriptor of ESTABLISHED is the plain end of the session, a connected unix stream socket.
 * End of file on it is the client's close_notify (what it can still be told, it can be told), and
 * shutdown(SHUT_WR) sends ours.  Closing it ends the session.  A session does not need the channel
 * that it was made on: it goes on when the negotiator ends, while a handshake does not.
 *
 * Each side treats the other as hostile: version, type, exact length, ranges, strings that
 * are UTF-8 without NUL, and descriptors only where one belongs.
 *
 * Kernel TLS, one day: the descriptor of ESTABLISHED would be the client's own socket with the keys
 * in the kernel, and a stream of any domain.  No record would change.
 *
 * A record: u8 version, u8 type, u16 zero, u32 length of the body, body; big-endian.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "wire/reason.h"

#define TLS_CHANNEL_VERSION 1u
#define TLS_RECORD_MAX 12288u           /* bytes; room for every record */
#define TLS_PEER_MAX 64u                /* bytes of a peer's address */
#define TLS_HOST_MAX 255u               /* bytes of a server's name */
#define TLS_SENTENCE_MAX 1024u          /* bytes of a failure's sentence */
#define TLS_SUBJECT_MAX 2048u           /* bytes of a distinguished name */
#define TLS_NAME_MAX 2048u              /* bytes of one alternative name, or a PSK identity */
#define TLS_MAX_NAMES 64u               /* alternative names of one certificate */
#define TLS_IDENTITY_MAX 8192u          /* bytes of all strings of an identity together */
#define TLS_WORD_MAX 64u                /* bytes of "TLS1.3", and of a cipher suite's name */
#define TLS_FINGERPRINT_LEN 64u         /* hexadecimal digits of a SHA-256 */
#define TLS_DEADLINE_MAX 3600000u       /* milliseconds: an hour */

enum tls_record_type {
	TLS_HELLO = 1,                  /* nbd-tls to negotiator */
	TLS_ESTABLISHED = 2,
	TLS_FAILED = 3,
	TLS_ENDED = 4,
	TLS_START = 16,                 /* negotiator to nbd-tls */
	TLS_CANCEL = 17,
	TLS_CONNECT = 18,
};

#define TLS_CAN_X509 (1u << 0)          /* it has a server certificate and its key */
#define TLS_CAN_PSK (1u << 1)           /* it has pre-shared keys */
#define TLS_CAN_VERIFY (1u << 2)        /* it has a CA to check clients' certificates with */

/* What nbd-tls can do now.  A client that it can do nothing for is not to be offered TLS. */
struct tls_hello {
	uint8_t can;                    /* TLS_CAN_*; VERIFY only beside X509 */
	struct span subject;            /* of the server's certificate; empty without one */
	uint64_t not_after;             /* seconds since 1970 when it expires; 0 without one */
};

enum tls_certificate {
	TLS_CERTIFICATE_OFF = 0,        /* the client is not asked for one */
	TLS_CERTIFICATE_OPTIONAL = 1,   /* it may show none; one that is bad is refused */
	TLS_CERTIFICATE_REQUIRED = 2,   /* unless it has a pre-shared key, which says who it is */
	N_TLS_CERTIFICATES,
};

/* Carries exactly one descriptor, a connected stream socket. */
struct tls_start {
	uint32_t request;               /* the negotiator's number for the answer; not zero, and
	                                 * none whose handshake is going on */
	uint32_t deadline;              /* milliseconds for the handshake, 1 to TLS_DEADLINE_MAX */
	uint8_t certificate;            /* enum tls_certificate */
	struct span peer;               /* to TLS_PEER_MAX bytes; for the log */
};

/* Carries exactly one descriptor, a connected stream socket, on which the server waits for a handshake. */
struct tls_connect {
	uint32_t request;               /* as of START */
	uint32_t deadline;
	struct span host;               /* whom the server's certificate must name; 1 to
	                                 * TLS_HOST_MAX bytes */
	struct span peer;
};

enum tls_method {
	TLS_METHOD_ANONYMOUS = 1,       /* the client showed nothing: encrypted, nobody known */
	TLS_METHOD_X509 = 2,            /* it has a certificate that the CA vouches for */
	TLS_METHOD_PSK = 3,             /* it has a pre-shared key */
};

/* Who the client is.  Only what the method has is there; all else is empty. */
struct tls_identity {
	uint8_t method;                 /* enum tls_method */
	struct span subject;            /* RFC 4514, "CN=alice,O=Example"; may be empty with X509 */
	struct span fingerprint;        /* lower-case SHA-256 of the certificate */
	struct span psk;                /* identity of the key */
	uint16_t n_names;               /* to TLS_MAX_NAMES */
	struct span names[TLS_MAX_NAMES];       /* "dns:a.example", "email:...", "uri:...",
	                                         * "ip:192.0.2.1" */
};

/* Carries exactly one descriptor, the plain end. */
struct tls_established {
	uint32_t request;
	uint64_t session;               /* not zero; never used again by this nbd-tls */
	struct span version;            /* "TLS1.3" */
	struct span cipher;             /* "TLS_AES_256_GCM_SHA384", or as GnuTLS describes it */
	struct tls_identity identity;
};

struct tls_failed {
	uint32_t request;               /* not zero */
	uint32_t reason;                /* enum reason, not REASON_NONE */
	struct span sentence;           /* for the log; names the certificate's subject if known */
};

struct tls_ended {
	uint64_t session;
	uint32_t reason;                /* enum reason: REASON_DISCONNECT when nothing was wrong */
};

struct tls_cancel {
	uint32_t request;               /* unknown ones are ignored: it may have been answered */
};

/* Any record, decoded.  Spans point into the bytes it was decoded from. */
struct tls_record {
	enum tls_record_type type;
	union {
		struct tls_hello hello;
		struct tls_established established;
		struct tls_failed failed;
		struct tls_ended ended;
		struct tls_start start;
		struct tls_connect connect;
		struct tls_cancel cancel;
	};
};

/* NULL, or what is wrong with the record in words for the log; *ret is untouched then. */
const char *decode_tls_record(struct bytes in, struct tls_record *ret);

/* Appends the record; TLS_RECORD_MAX bytes hold any that decode_tls_record() takes.  Sentences and
 * peers that are too long are cut between characters; who fills an identity keeps its limits. */
void emit_tls_record(struct emit *out, const struct tls_record *record);

/* NULL, or which of the limits above the identity breaks. */
const char *check_tls_identity(const struct tls_identity *identity);

/* Whether a record of this type carries a descriptor. */
static inline bool tls_record_carries_fd(enum tls_record_type type)
{
	return type == TLS_START || type == TLS_CONNECT || type == TLS_ESTABLISHED;
}

/* Which side sends it: the negotiator, or who attaches; else nbd-tls. */
static inline bool tls_record_is_negotiators(enum tls_record_type type)
{
	return type == TLS_START || type == TLS_CONNECT || type == TLS_CANCEL;
}
