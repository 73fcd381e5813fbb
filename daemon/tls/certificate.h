/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients' certificates: whether they are good, and what they say about who it is.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>

#include "tls/credentials.h"
#include "wire/tls-channel.h"

#define CERTIFICATE_SHOWN_SIZE 260u

/* What a GnuTLS session's pointer (gnutls_session_set_ptr) refers to. */
struct certificate_session {
	struct credentials *credentials;
	bool refused;                   /* by certificate_verify(); the sentence says why */
	char sentence[TLS_SENTENCE_MAX];
	char psk[CERTIFICATE_SHOWN_SIZE];       /* the identity that it named, for people */
	bool psk_unknown;
};

/* For gnutls_session_set_verify_function(): trust, purpose, dates, revocation; and that what it
 * says about who it is can be told to others. */
int certificate_verify(gnutls_session_t tls);

/* The subject for people: "CN=alice", or "(without a name)". */
void certificate_show(gnutls_x509_crt_t crt, char *ret, size_t size);

/* Strings of an identity. */
struct identity_store {
	size_t len;
	char text[TLS_IDENTITY_MAX];
};

/* Who is at the other end, after the handshake.  Spans point into `store`.  NULL, or what
 * keeps it from being told. */
const char *certificate_identity(gnutls_session_t tls, struct identity_store *store,
                                 struct tls_identity *ret);
