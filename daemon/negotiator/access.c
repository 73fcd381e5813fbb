/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Access rights: the rules of the catalogue, in the words of the channel. */
#include "negotiator/access.h"

#include "negotiator/catalogue.h"
#include "wire/channel.h"

_Static_assert(ACCESS_READ == CHANNEL_RIGHT_READ && ACCESS_WRITE == CHANNEL_RIGHT_WRITE,
               "rules and channel mean the same rights");

uint8_t access_rights(const struct catalogue_entry *entry, const struct peer *peer)
{
	return access_list_rights(&entry->rules, peer);
}
