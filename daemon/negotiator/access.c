/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access rights.  There are no rules yet: who can connect may read and write, and the export
 * itself keeps what is read-only so.
 */
#include "negotiator/access.h"

#include "wire/channel.h"

uint8_t access_rights(const struct catalogue_entry *entry, const char *peer)
{
	(void) entry;
	(void) peer;
	return CHANNEL_RIGHT_READ | CHANNEL_RIGHT_WRITE;
}
