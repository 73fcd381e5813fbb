/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads keys into GnuTLS.
 */
#include "tls/credentials.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "tls/certificate.h"

/* On top of the system's policy, and only ever less than it: what was never safe is taken away. */
#define VERSIONS "-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-DTLS-ALL"
#define WITH_PSK ":+ECDHE-PSK:+DHE-PSK"         /* not plain PSK: it has no forward secrecy */

static gnutls_priority_t plain_priority, psk_priority;

/* "@SYSTEM" is known where an administrator has a policy of that name; else it is what GnuTLS
 * was built with, or was told in its configuration. */
static int prepare_priority(const char *which, gnutls_priority_t *ret, struct failure *why)
{
	char text[160];
	int r;

	snprintf(text, sizeof text, "@SYSTEM:%s", which);
	r = gnutls_priority_init(ret, text, NULL);
	if (r < 0)
		r = gnutls_priority_init2(ret, which, NULL, GNUTLS_PRIORITY_INIT_DEF_APPEND);
	return r < 0 ? fail_plain(why, EINVAL, "GnuTLS does not take the priorities %s: %s", which,
	                          gnutls_strerror(r)) : 0;
}

int credentials_prepare(struct failure *why)
{
	int r = prepare_priority(VERSIONS, &plain_priority, why);

	return r < 0 ? r : prepare_priority(VERSIONS WITH_PSK, &psk_priority, why);
}

/* Its dates and its name, which GnuTLS does not ask of a server's own certificate. */
static int describe_certificate(struct credentials *c, const struct key_text *cert,
                                struct failure *why)
{
	gnutls_datum_t pem = datum_of(cert);
	char subject[CERTIFICATE_SHOWN_SIZE];
	gnutls_x509_crt_t crt;
	int r = gnutls_x509_crt_init(&crt);

	if (r < 0)
		return fail_plain(why, ENOMEM, "%s: %s", cert->path, gnutls_strerror(r));
	r = gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM);
	if (r >= 0) {
		c->not_after = gnutls_x509_crt_get_expiration_time(crt);
		certificate_show(crt, subject, sizeof subject);
		c->subject = strdup(subject);
	}
	gnutls_x509_crt_deinit(crt);
	if (r < 0)
		return fail_plain(why, EINVAL, "%s has no certificate in PEM: %s", cert->path,
		                  gnutls_strerror(r));
	return c->subject ? 0 : fail(why, ENOMEM, "cannot read %s", cert->path);
}

/* A certificate and its key, into `into`; neither of the two is there: *ret_cert is empty. */
static int read_pair(const struct credentials_folder *folder, enum key_file cert_file,
                     enum key_file key_file, gnutls_certificate_credentials_t into,
                     struct key_text *ret_cert, struct failure *why)
{
	AUTO_KEY_TEXT key = { 0 };
	gnutls_datum_t cert_pem, key_pem;
	int r = key_file_read(folder, cert_file, ret_cert, why);

	if (r == 0)
		r = key_file_read(folder, key_file, &key, why);
	if (r < 0 || (!ret_cert->len && !key.len))
		return r;
	if (!ret_cert->len || !key.len)
		return fail_plain(why, EINVAL, "%s is there, but %s is not",
		                  ret_cert->len ? ret_cert->path : key.path,
		                  ret_cert->len ? key.path : ret_cert->path);
	cert_pem = datum_of(ret_cert);
	key_pem = datum_of(&key);
	r = gnutls_certificate_set_x509_key_mem2(into, &cert_pem, &key_pem, GNUTLS_X509_FMT_PEM,
	                                         NULL, 0);
	return r < 0 ? fail_plain(why, EINVAL, "%s and %s: %s", ret_cert->path, key.path,
	                          gnutls_strerror(r)) : 0;
}

static int read_server(const struct credentials_folder *folder, struct credentials *c,
                       struct failure *why)
{
	AUTO_KEY_TEXT cert = { 0 };
	int r = read_pair(folder, SERVER_CERT, SERVER_KEY, c->x509, &cert, why);

	if (r < 0 || !cert.len)
		return r;
	c->can |= TLS_CAN_X509;
	return describe_certificate(c, &cert, why);
}

/* When GnuTLS takes it for out of date, and refuses whoever it is about; of several the first. */
static time_t end_of_lists(const gnutls_datum_t *pem)
{
	gnutls_x509_crl_t *lists = NULL;
	unsigned n = 0;
	time_t first = 0;

	if (gnutls_x509_crl_list_import2(&lists, &n, pem, GNUTLS_X509_FMT_PEM, 0) < 0)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		time_t ends = gnutls_x509_crl_get_next_update(lists[i]);

		if (ends != (time_t) -1 && (!first || ends < first))
			first = ends;
		gnutls_x509_crl_deinit(lists[i]);
	}
	gnutls_free(lists);
	return first;
}

static int read_ca(const struct credentials_folder *folder, struct credentials *c,
                   struct failure *why)
{
	AUTO_KEY_TEXT ca = { 0 }, crl = { 0 };
	gnutls_datum_t pem;
	int r = key_file_read(folder, CA_CERT, &ca, why);

	if (r == 0)
		r = key_file_read(folder, CA_CRL, &crl, why);
	if (r < 0 || (!ca.len && !crl.len))
		return r;
	if (!ca.len)
		return fail_plain(why, EINVAL, "%s is there, but %s is not", crl.path, ca.path);
	pem = datum_of(&ca);
	r = gnutls_certificate_set_x509_trust_mem(c->x509, &pem, GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return fail_plain(why, EINVAL, "%s: %s", ca.path,
		                  r ? gnutls_strerror(r) : "there is no certificate in it");
	if (crl.len) {
		pem = datum_of(&crl);
		r = gnutls_certificate_set_x509_crl_mem(c->x509, &pem, GNUTLS_X509_FMT_PEM);
		if (r <= 0)
			return fail_plain(why, EINVAL, "%s: %s", crl.path,
			                  r ? gnutls_strerror(r) : "there is no list in it");
		c->crl_ends = end_of_lists(&pem);
	}
	c->can |= c->can & TLS_CAN_X509 ? TLS_CAN_VERIFY : 0;
	return 0;
}

static int read_client_pair(const struct credentials_folder *folder, struct credentials *c,
                            struct failure *why)
{
	AUTO_KEY_TEXT cert = { 0 };

	return read_pair(folder, CLIENT_CERT, CLIENT_KEY, c->client, &cert, why);
}

/* What it takes to be a client: somebody who vouches for servers, and perhaps a certificate. */
static int read_client(const struct credentials_folder *folder, struct credentials *c,
                       struct failure *why)
{
	AUTO_KEY_TEXT ca = { 0 };
	gnutls_datum_t pem;
	int r = key_file_read(folder, CA_CERT, &ca, why);

	if (r < 0 || !ca.len)
		return r;
	r = gnutls_certificate_allocate_credentials(&c->client);
	if (r < 0)
		return fail_plain(why, ENOMEM, "cannot read keys: %s", gnutls_strerror(r));
	pem = datum_of(&ca);
	r = gnutls_certificate_set_x509_trust_mem(c->client, &pem, GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return fail_plain(why, EINVAL, "%s: %s", ca.path,
		                  r ? gnutls_strerror(r) : "there is no certificate in it");
	return read_client_pair(folder, c, why);
}

/* The key of the identity that a client names.  Who is unknown gets a key that nobody has, so
 * that the answer is the same as to a wrong key. */
static int find_key(gnutls_session_t tls, const gnutls_datum_t *identity, gnutls_datum_t *ret)
{
	struct certificate_session *asking = gnutls_session_get_ptr(tls);
	const struct span name = { .at = identity->data, .len = identity->size };
	const struct psk_key *key = psk_keys_find(&asking->credentials->keys, name);

	printable(name, sizeof asking->psk - 4, asking->psk, sizeof asking->psk);
	asking->psk_unknown = !key;
	if (!key)
		return 1;
	ret->data = gnutls_malloc(key->len);
	if (!ret->data)
		return -1;
	memcpy(ret->data, key->key, key->len);
	ret->size = (unsigned) key->len;
	return 0;
}

static int read_psk(const struct credentials_folder *folder, struct credentials *c,
                    struct failure *why)
{
	AUTO_KEY_TEXT text = { 0 };
	int r = key_file_read(folder, PSK_KEYS, &text, why);

	if (r == 0)
		r = psk_keys_parse((struct span) { .at = text.at, .len = text.len }, text.path,
		                   &c->keys, why);
	if (r < 0 || c->keys.n == 0)
		return r;
	if (gnutls_psk_allocate_server_credentials(&c->psk) < 0)
		return fail(why, ENOMEM, "cannot read %s", text.path);
	gnutls_psk_set_server_credentials_function2(c->psk, find_key);
	c->can |= TLS_CAN_PSK;
	return 0;
}

static bool is_empty(const struct credentials *c)
{
	return !(c->can & (TLS_CAN_X509 | TLS_CAN_PSK)) && !c->client;
}

static int fill(const struct credentials_folder *folder, struct credentials *c,
                struct failure *why)
{
	int r = gnutls_certificate_allocate_credentials(&c->x509);

	if (r < 0)
		return fail_plain(why, ENOMEM, "cannot read keys: %s", gnutls_strerror(r));
	r = read_server(folder, c, why);
	if (r == 0)
		r = read_ca(folder, c, why);
	if (r == 0)
		r = read_psk(folder, c, why);
	return r == 0 ? read_client(folder, c, why) : r;
}

int credentials_read(const struct credentials_folder *folder, bool may_be_empty,
                     struct credentials **ret, struct failure *why)
{
	struct credentials *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return fail(why, ENOMEM, "cannot read keys");
	c->n_refs = 1;
	r = fill(folder, c, why);
	if (r == 0 && !may_be_empty && is_empty(c))
		r = fail_plain(why, ENOKEY, "there are no keys in %s: it wants server-cert.pem "
		               "with server-key.pem, or psk.keys; ca-cert.pem to attach exports",
		               folder->path);
	c->priority = c->can & TLS_CAN_PSK ? psk_priority : plain_priority;
	if (r < 0)
		credentials_unref(c);
	else
		*ret = c;
	return r;
}

struct credentials *credentials_ref(struct credentials *c)
{
	atomic_fetch_add(&c->n_refs, 1);
	return c;
}

void credentials_unref(struct credentials *c)
{
	if (!c || atomic_fetch_sub(&c->n_refs, 1) > 1)
		return;
	if (c->x509)
		gnutls_certificate_free_credentials(c->x509);
	if (c->psk)
		gnutls_psk_free_server_credentials(c->psk);
	psk_keys_clear(&c->keys);
	if (c->client)
		gnutls_certificate_free_credentials(c->client);
	free(c->subject);
	free(c);
}

void credentials_describe(const struct credentials *c, char *ret, size_t size)
{
	char date[32] = "";
	struct tm tm;

	if (c->can & TLS_CAN_X509 && gmtime_r(&c->not_after, &tm))
		strftime(date, sizeof date, "%Y-%m-%d", &tm);
	snprintf(ret, size, "%s%s%s%s%s", *date ? "certificate valid until " : "", date,
	         *date && c->keys.n ? ", " : "", c->keys.n ? "pre-shared keys" :
	         is_empty(c) ? "no keys" : "",
	         *date && !(c->can & TLS_CAN_VERIFY) ? ", no CA to check clients with" : "");
}
