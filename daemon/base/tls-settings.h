/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keys about TLS may be, in the file of an export and in the negotiator's.
 */
#pragma once

#include "base/failure.h"

/* TLS=. */
enum tls_policy {
	TLS_POLICY_UNSET,               /* what holds for all; and for all: off */
	TLS_POLICY_OFF,                 /* in clear only */
	TLS_POLICY_ALLOW,               /* as the client likes */
	TLS_POLICY_REQUIRE,             /* nothing in clear */
	N_TLS_POLICIES,
};

/* ClientCertificate=. */
enum client_certificate {
	CLIENT_CERTIFICATE_UNSET,       /* required if there is a CA to check it with, else none */
	CLIENT_CERTIFICATE_NONE,        /* it is not asked for */
	CLIENT_CERTIFICATE_OPTIONAL,    /* a client may have none */
	CLIENT_CERTIFICATE_REQUIRED,    /* unless it has a pre-shared key */
	N_CLIENT_CERTIFICATES,
};

/* "off", "allow", "require"; "" for what is not set. */
const char *tls_policy_word(enum tls_policy policy);

/* Parsers for tables of settings. */
int setting_tls_policy(const char *value, void *policy, struct failure *why);
int setting_client_certificate(const char *value, void *certificate, struct failure *why);
