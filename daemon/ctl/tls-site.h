/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys and certificates of a small site.  Two folders, so that what serves never has what makes
 * clients:
 *
 *   SERVER    server-cert.pem, server-key.pem, ca-cert.pem, ca-crl.pem, psk.keys: nbd-tls(8)
 *   CA        ca-key.pem, ca-cert.pem
 *             clients/NAME/: ca-cert.pem, client-cert.pem, client-key.pem, keys.psk, under
 *             the names by which qemu and libnbd know them, to be moved to the client
 *             issued/NAME.pem, revoked.pem: tls-issued.h
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"
#include "ctl/certtool.h"

struct tls_site {
	char *server, *ca;              /* absolute */
};

/* NULL: the usual ones.  The CA's is the server's with "-ca" behind it. */
int tls_site_find(const char *server, const char *ca, struct tls_site *ret, struct failure *why);
void tls_site_clear(struct tls_site *site);

struct certtool_pair tls_site_ca(const struct tls_site *site);

/* A client's name: also a folder's, a common name and an identity of a key. */
int tls_name_check(const char *name, struct failure *why);
/* A name of a host, or an address. */
int tls_host_check(const char *host, struct failure *why);

bool tls_site_has_ca(const struct tls_site *site);
int tls_site_find_ca(const struct tls_site *site, struct failure *why);
/* Making a CA would not be in the way of one whose key is kept elsewhere. */
int tls_site_no_other_ca(const struct tls_site *site, struct failure *why);

/* -EEXIST and a sentence if there is one, of which something would be lost. */
int tls_site_no_server(const struct tls_site *site, struct failure *why);
int tls_site_no_client(const struct tls_site *site, const char *name, struct failure *why);
int tls_site_no_key(const struct tls_site *site, const char *name, struct failure *why);

/* Makes the folders as far as they are not there, and lets one at a time change them: closing the
 * descriptor unlocks. */
int tls_site_lock(const struct tls_site *site, int *ret_fd, struct failure *why);

/* As far as it is not there. */
int tls_site_make_ca(const struct tls_site *site, struct failure *why);

/* They replace what is there. */
int tls_site_make_server(const struct tls_site *site, const char *const *hosts, size_t n_hosts,
                         unsigned days, struct failure *why);
int tls_site_make_client(const struct tls_site *site, const char *name, unsigned days,
                         struct failure *why);
int tls_site_make_key(const struct tls_site *site, const char *name, struct failure *why);

/* CA/clients/NAME */
int tls_site_client_folder(const struct tls_site *site, const char *name, char ret[PATH_MAX],
                           struct failure *why);
