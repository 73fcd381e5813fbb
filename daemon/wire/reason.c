/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "wire/reason.h"

#include "base/attr.h"

static const char *const words[] = {
	[REASON_NONE] = "none",
	[REASON_EXPORT_UNKNOWN] = "export-unknown",
	[REASON_EXPORT_GONE] = "export-gone",
	[REASON_OFFER_STALE] = "offer-stale",
	[REASON_NO_SLOT] = "no-slot",
	[REASON_START_FAILED] = "start-failed",
	[REASON_START_SLOW] = "start-slow",
	[REASON_SHUTDOWN] = "shutdown",
	[REASON_PROTOCOL] = "protocol",
	[REASON_DEADLINE] = "deadline",
	[REASON_LIMIT] = "limit",
	[REASON_TOKEN_UNKNOWN] = "token-unknown",
	[REASON_STALLED] = "stalled",
	[REASON_PEER_GONE] = "peer-gone",
	[REASON_DISCONNECT] = "disconnect",
	[REASON_DEVICE] = "device",
	[REASON_KICKED] = "kicked",
	[REASON_NO_ACCESS] = "no-access",
	[REASON_TLS_HANDSHAKE_FAILED] = "tls-handshake-failed",
	[REASON_TLS_UNTRUSTED] = "tls-untrusted",
	[REASON_TLS_TIMEOUT] = "tls-timeout",
	[REASON_TLS_CUT] = "tls-cut",
	[REASON_TLS_BROKEN] = "tls-broken",
	[REASON_TLS_UNAVAILABLE] = "tls-unavailable",
	[REASON_TLS_REQUIRED] = "tls-required",
	[REASON_SINGLE_WRITER] = "single-writer",
	[REASON_RESIZED] = "resized",
};
_Static_assert(ARRAY_LEN(words) == N_REASONS, "every reason has its word");

const char *reason_word(uint32_t reason)
{
	return reason < ARRAY_LEN(words) ? words[reason] : "unknown";
}
