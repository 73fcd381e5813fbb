/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes keys, certificates and lists of revoked ones with certtool(1) of GnuTLS, which alone
 * handles keys here.  All files are made under another name and renamed when they are whole; keys
 * are for their owner alone, and what needs no secret may be read by all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"

/* A template may have so many names of hosts. */
#define CERTTOOL_HOSTS_MAX 64u

struct certtool_pair {
	const char *folder;             /* that is there */
	const char *cert, *key;         /* names in it */
};

struct certtool_subject {
	const char *name;               /* the common name; of letters that need no quoting */
	const char *const *hosts;       /* of a server: names and addresses; the same */
	size_t n_hosts;
	unsigned days;                  /* from now on */
};

/* Whether certtool can be run at all. */
int certtool_find(struct failure *why);

/* A CA's key and certificate, each unless it is there. */
int certtool_make_ca(const struct certtool_pair *ca, const char *name, struct failure *why);

/* A key and a certificate of the CA for it, instead of those that are there: for a server if it has
 * hosts, else for a client. */
int certtool_issue(const struct certtool_pair *ca, const struct certtool_subject *subject,
                   const struct certtool_pair *ret, struct failure *why);

/* The list `crl` of the certificates in the file `revoked`, both paths; `number` grows. */
int certtool_revoke(const struct certtool_pair *ca, const char *revoked, unsigned long long number,
                    const char *crl, struct failure *why);
