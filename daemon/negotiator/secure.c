/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "negotiator/secure.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* "dn:CN=alice,O=Example", "psk:bob"; "" for who has shown nothing. */
static void name_it(struct secure *s)
{
	const struct tls_identity *id = &s->told.identity;
	const char *kind = id->psk.len ? "psk:" : id->subject.len ? "dn:" : "fingerprint:";
	struct span name = id->psk.len ? id->psk :
	                   id->subject.len ? id->subject : id->fingerprint;

	if (!name.len)
		return;
	name = span_cut(name, sizeof s->name - 1 - strlen(kind));
	(void) snprintf(s->name, sizeof s->name, "%s%.*s", kind, (int) name.len,
	                (const char *) name.at);
}

struct secure *secure_new(struct bytes record)
{
	struct secure *s = calloc(1, sizeof *s + record.left);
	struct tls_record decoded;
	const char *fault;

	if (!s)
		return NULL;
	memcpy(s->record, record.at, record.left);
	fault = decode_tls_record(bytes_over(s->record, record.left), &decoded);
	assert(!fault && decoded.type == TLS_ESTABLISHED);
	s->told = decoded.established;
	s->identity = (struct identity) {
		.subject = s->told.identity.subject,
		.fingerprint = s->told.identity.fingerprint,
		.psk = s->told.identity.psk,
		.names = s->told.identity.names,
		.n_names = s->told.identity.n_names,
	};
	name_it(s);
	printable(span_of(*s->name ? s->name : "a client that has not said who it is"),
	          SECURE_SHOWN, s->shown, sizeof s->shown);
	(void) snprintf(s->tls, sizeof s->tls, "%.*s %.*s", (int) s->told.version.len,
	                (const char *) s->told.version.at, (int) s->told.cipher.len,
	                (const char *) s->told.cipher.at);
	return s;
}
