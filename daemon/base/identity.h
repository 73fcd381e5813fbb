/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Identity rules: `Identity=` as a list in which a client is looked up by what TLS has told
 * about it.
 *
 * One rule a line: what it grants, and to whom.
 *
 *	list dns:*.example.org          sees that the export is there
 *	read dn:CN=web1,O=Example       reads, and is told that the export is read-only
 *	write psk:backup                reads and writes
 *
 *	dn          the certificate's subject, as RFC 4514 writes it
 *	dns, email, uri, ip             one of its alternative names; ip may have a /N
 *	fingerprint SHA-256 of the certificate
 *	psk         the identity of a pre-shared key
 *	any         whoever has a certificate or a key; no pattern follows
 *
 * A * in a pattern stands for any bytes within one part of the name: parts end at a dot in dns,
 * @ in email, / in uri, and a comma or plus in dn that is not escaped; so "dn:CN=*,O=Example" is
 * never met by a comma inside of a CN.  In psk it stands for anything; ip and fingerprint have
 * none.
 *
 * The first rule that matches counts.  Whom no rule matches has no access, and nobody who has
 * not said who it is by TLS is matched by any.
 */
#pragma once

#include <stdint.h>

#include "base/access.h"
#include "base/bytes.h"
#include "base/failure.h"
#include "base/tls-settings.h"

enum identity_kind {
	IDENTITY_ANY,
	IDENTITY_DN,
	IDENTITY_DNS,
	IDENTITY_EMAIL,
	IDENTITY_URI,
	IDENTITY_IP,
	IDENTITY_FINGERPRINT,
	IDENTITY_PSK,
	N_IDENTITY_KINDS,
};

/* What a client has proved.  All is empty for one that has shown nothing. */
struct identity {
	struct span subject;            /* of the certificate */
	struct span fingerprint;        /* of it, in lower-case hexadecimal */
	struct span psk;                /* identity of the pre-shared key */
	size_t n_names;
	const struct span *names;       /* of the certificate, "dns:a.example" */
};

struct identity_rule {
	enum identity_kind kind;
	uint8_t rights;                 /* ACCESS_*, never 0 */
	char *pattern;                  /* "" for any */
	struct access_list addresses;   /* of IDENTITY_IP: one */
};

struct identity_list {
	struct identity_rule *rules;
	size_t n;
};

/* `ret` is untouched on failure.  No rule at all is an empty list. */
int identity_list_parse(const char *text, struct identity_list *ret, struct failure *why);
void identity_list_clear(struct identity_list *list);

/* Whether it is such a list (NULL: an empty one), and goes with that policy. */
int identities_check(const char *text, enum tls_policy tls, struct failure *why);

/* What `who` may do by the list: ACCESS_*, 0 for nothing. */
uint8_t identity_list_rights(const struct identity_list *list, const struct identity *who);

/* For tables of settings: adds the rule as another line to the text, if it is one. */
int setting_identity(const char *value, void *char_pointer, struct failure *why);
