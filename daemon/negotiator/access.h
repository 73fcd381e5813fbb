/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may use which export: the one function that LIST, INFO, GO, EXPORT_NAME and the
 * metadata options share, so that LIST shows what GO would allow.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/peer.h"

struct catalogue_entry;

/* The CHANNEL_RIGHT_* that a client has there; 0 is no access. */
uint8_t access_rights(const struct catalogue_entry *entry, const struct peer *peer);

static inline bool access_allows(const struct catalogue_entry *entry, const struct peer *peer)
{
	return access_rights(entry, peer) != 0;
}
