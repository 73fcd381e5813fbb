/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a client was refused or closed: stable codes, for the journal's REASON= field and
 * for the channel.  A code keeps its number and its word for good.
 */
#pragma once

#include <stdint.h>

enum reason {
	REASON_NONE = 0,
	REASON_EXPORT_UNKNOWN = 1,      /* no such export */
	REASON_EXPORT_GONE = 2,         /* it went away between the offer and the hand-off */
	REASON_OFFER_STALE = 3,         /* size or contexts changed since the client saw them */
	REASON_NO_SLOT = 4,             /* MaxConnections= are in use */
	REASON_START_FAILED = 5,        /* the export could not start; the sentence says why */
	REASON_START_SLOW = 6,          /* the export did not answer in time */
	REASON_SHUTDOWN = 7,            /* it is stopping */
	REASON_PROTOCOL = 8,            /* the peer broke the protocol */
	REASON_DEADLINE = 9,            /* the handshake took too long */
	REASON_LIMIT = 10,              /* too many options, or bytes of them, or clients */
	REASON_TOKEN_UNKNOWN = 11,      /* a hand-off without a valid reservation */
	REASON_STALLED = 12,            /* no progress while others waited for memory */
	REASON_PEER_GONE = 13,          /* reset, or silent beyond the keepalive */
	REASON_DISCONNECT = 14,         /* the client ended it: no fault */
	REASON_DEVICE = 15,             /* the device failed or vanished */
	REASON_KICKED = 16,             /* an administrator closed it */
	REASON_NO_ACCESS = 17,          /* no access rule grants anything */
	REASON_TLS_HANDSHAKE_FAILED = 18,       /* the two sides do not agree on how */
	REASON_TLS_UNTRUSTED = 19,      /* a certificate or key that says who it is: missing or bad */
	REASON_TLS_TIMEOUT = 20,        /* the TLS handshake took too long */
	REASON_TLS_CUT = 21,            /* the connection ended without close_notify */
	REASON_TLS_BROKEN = 22,         /* a TLS record that is not what it should be */
	REASON_TLS_UNAVAILABLE = 23,    /* nbd-tls does not run, or has no keys for this */
	REASON_TLS_REQUIRED = 24,       /* in clear where TLS is required */
	REASON_SINGLE_WRITER = 25,      /* another client writes, and there may be one */
	REASON_RESIZED = 26,            /* the device has changed its size: it shall connect again */
	N_REASONS,
};

/* "export-unknown"; "unknown" for a number that has no word. */
const char *reason_word(uint32_t reason);
