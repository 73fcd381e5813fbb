/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of a client by TLS, for as long as it is in the handshake.
 */
#pragma once

#include "base/identity.h"
#include "wire/channel.h"
#include "wire/tls-channel.h"

#define SECURE_SHOWN 200u               /* bytes of an identity in a sentence */

struct secure {
	struct identity identity;
	char name[CHANNEL_IDENTITY_MAX + 1];    /* as a rule of Identity= would name it, or "" */
	char shown[SECURE_SHOWN + 4];           /* the same, printable, for sentences */
	char tls[2 * TLS_WORD_MAX + 2];         /* "TLS1.3 TLS_AES_256_GCM_SHA384" */
	struct tls_established told;            /* its spans point into */
	uint8_t record[];                       /* this */
};

/* From the record as it came, which has been decoded as an ESTABLISHED.  NULL without memory. */
struct secure *secure_new(struct bytes record);
