/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Access: the rules and the policy of the catalogue, in order. */
#include "negotiator/access.h"

#include "base/identity.h"
#include "negotiator/catalogue.h"
#include "wire/channel.h"

_Static_assert(ACCESS_READ == CHANNEL_RIGHT_READ && ACCESS_WRITE == CHANNEL_RIGHT_WRITE,
               "rules and channel mean the same rights");

static struct access denied(enum access_denial why)
{
	return (struct access) { .denial = why };
}

/* Whom an address does not let in hears of nothing else. */
struct access access_of(const struct catalogue_entry *entry, const struct peer *peer,
                        const struct identity *identity)
{
	uint8_t rights = access_list_rights(&entry->rules, peer);

	if (!rights)
		return denied(ACCESS_DENIED_ADDRESS);
	if (identity && entry->tls == TLS_POLICY_OFF)
		return denied(ACCESS_DENIED_TLS);
	if (!identity && (entry->tls == TLS_POLICY_REQUIRE || entry->identities.n))
		return denied(ACCESS_DENIED_CLEAR);
	if (entry->identities.n)
		rights &= identity_list_rights(&entry->identities, identity);
	return rights ? (struct access) { .rights = rights } : denied(ACCESS_DENIED_IDENTITY);
}

uint8_t access_channel_rights(struct access access)
{
	return access.rights & (CHANNEL_RIGHT_READ | CHANNEL_RIGHT_WRITE);
}
