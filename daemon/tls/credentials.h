/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keys and certificates of one moment: read whole or not at all, never changed afterwards,
 * shared by all sessions that began while they were the newest.
 *
 *   server-cert.pem, server-key.pem   both or none; intermediate certificates behind the first
 *   ca-cert.pem                       who vouches for clients' certificates
 *   ca-crl.pem                        which of them are revoked
 *   psk.keys                          pre-shared keys
 *   client-cert.pem, client-key.pem   who we are to servers, where exports of theirs are attached; both
 *                                     or none.  Servers are checked with ca-cert.pem
 *
 * A file without anything but white space counts as missing: that is how nbd-tls.service passes
 * one that is not there.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "base/failure.h"
#include "tls/key-file.h"
#include "tls/psk-keys.h"
#include "wire/tls-channel.h"

struct credentials {
	atomic_uint n_refs;
	uint8_t can;                    /* TLS_CAN_* */
	gnutls_certificate_credentials_t x509;  /* NULL without TLS_CAN_X509 */
	gnutls_psk_server_credentials_t psk;    /* NULL without TLS_CAN_PSK */
	struct psk_keys keys;
	gnutls_certificate_credentials_t client;        /* NULL where no server can be checked */
	char *subject;                  /* of the server's certificate, for people; NULL without */
	time_t not_after;               /* of the same; 0 without */
	time_t crl_ends;                /* when the list of revoked ones is out of date; 0: never */
	gnutls_priority_t priority;     /* borrowed */
};

/* What holds for all sets, from the system's policy.  Once, before the sandbox. */
int credentials_prepare(struct failure *why);

/* A folder without keys is refused with ENOKEY, or else makes a set of none, which can nothing. */
int credentials_read(const struct credentials_folder *folder, bool may_be_empty,
                     struct credentials **ret, struct failure *why);

struct credentials *credentials_ref(struct credentials *c);
void credentials_unref(struct credentials *c);

/* "certificate valid until 2027-01-01", and which methods there are; for STATUS=. */
void credentials_describe(const struct credentials *c, char *ret, size_t size);
