/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which certificates clients have, and which of these are revoked.  The CA keeps a copy of each,
 * for the client's own files are moved to the client:
 *
 *   CA/issued/NAME.pem   all that NAME has got and that are not revoked
 *   CA/revoked.pem       all that are, of everybody: the next list is made of them
 */
#pragma once

#include <stdbool.h>

#include "ctl/tls-site.h"

bool tls_issued_has(const struct tls_site *site, const char *name);

/* The client's new certificate is one of them. */
int tls_issued_note(const struct tls_site *site, const char *name, struct failure *why);

/* All its certificates join the list of revoked ones, its pre-shared key goes, and so do its files
 * here.  -ENOENT if there is nothing. */
int tls_issued_revoke(const struct tls_site *site, const char *name, struct failure *why);
