/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may use which export: the one function that LIST, INFO, GO, EXPORT_NAME and the
 * metadata options share, so that LIST shows what GO would allow.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/access.h"
#include "base/peer.h"

struct catalogue_entry;
struct identity;

/* Why there are no rights. */
enum access_denial {
	ACCESS_GRANTED,                 /* there are some */
	ACCESS_DENIED_ADDRESS,          /* no rule of Allow= is for where it comes from */
	ACCESS_DENIED_CLEAR,            /* it has to use TLS; that may be all */
	ACCESS_DENIED_TLS,              /* TLS=off, and it has come by TLS */
	ACCESS_DENIED_IDENTITY,         /* no rule of Identity= is for who it is */
};

struct access {
	uint8_t rights;                 /* ACCESS_* */
	enum access_denial denial;
};

/* What a client may do there who comes from `peer` and has shown `identity` by TLS; NULL for one
 * that speaks in clear. */
struct access access_of(const struct catalogue_entry *entry, const struct peer *peer,
                        const struct identity *identity);

/* The part of the rights that the export is told: CHANNEL_RIGHT_*. */
uint8_t access_channel_rights(struct access access);
