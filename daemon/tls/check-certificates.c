/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Of `nbd-tls --check`: certificates, their keys, and lists of revoked ones.
 */
#include <arpa/inet.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "tls/certificate.h"
#include "tls/check.h"

/* GnuTLS: who signed it is known, and it was signed; what is said of dates is said apart. */
#define VERIFY_FLAGS (GNUTLS_VERIFY_DISABLE_TIME_CHECKS | GNUTLS_VERIFY_DISABLE_TRUSTED_TIME_CHECKS)

static bool same(const gnutls_datum_t *a, const gnutls_datum_t *b)
{
	return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

/* By the names alone: whether `crt` says that it was signed by `ca`. */
static bool names_as_issuer(gnutls_x509_crt_t crt, gnutls_x509_crt_t ca)
{
	gnutls_datum_t issuer = { 0 }, subject = { 0 };
	bool is = gnutls_x509_crt_get_raw_issuer_dn(crt, &issuer) == 0 &&
		gnutls_x509_crt_get_raw_dn(ca, &subject) == 0 && same(&issuer, &subject);

	gnutls_free(issuer.data);
	gnutls_free(subject.data);
	return is;
}

static bool is_signed_by(gnutls_x509_crt_t crt, const gnutls_x509_crt_t *cas, unsigned n)
{
	unsigned status = 0;

	return gnutls_x509_crt_verify(crt, cas, n, VERIFY_FLAGS, &status) == 0 && status == 0;
}

/* All certificates of a file; NULL where there are none. */
static gnutls_x509_crt_t *read_list(struct check *c, enum key_file which, unsigned *ret_n)
{
	struct checked_file *file = &c->file[which];
	gnutls_datum_t pem = datum_of(&file->text);
	gnutls_x509_crt_t *list = NULL;
	int r;

	if (!file->there)
		return NULL;
	r = gnutls_x509_crt_list_import2(&list, ret_n, &pem, GNUTLS_X509_FMT_PEM, 0);
	if (r < 0) {
		*ret_n = 0;
		check_say(c, which, CHECK_BAD, "it has no certificates in PEM: %s",
		          gnutls_strerror(r));
		return NULL;
	}
	certificate_show(list[0], file->subject, sizeof file->subject);
	file->ends = gnutls_x509_crt_get_expiration_time(list[0]);
	return list;
}

/* "it", or "certificate 2 of it, CN=x,": which one of a file is meant. */
static void name_one(gnutls_x509_crt_t crt, unsigned i, char *ret, size_t size)
{
	char subject[CERTIFICATE_SHOWN_SIZE];

	certificate_show(crt, subject, sizeof subject);
	if (i == 0)
		(void) snprintf(ret, size, "it");
	else
		(void) snprintf(ret, size, "certificate %u in it, %s,", i + 1, subject);
}

static void check_list_dates(struct check *c, enum key_file which, gnutls_x509_crt_t *list,
                             unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char what[CERTIFICATE_SHOWN_SIZE + 40];

		name_one(list[i], i, what, sizeof what);
		check_dates(c, which, what, gnutls_x509_crt_get_activation_time(list[i]),
		            gnutls_x509_crt_get_expiration_time(list[i]));
	}
}

void check_ca(struct check *c)
{
	c->ca = read_list(c, CA_CERT, &c->n_ca);
	for (unsigned i = 0; i < c->n_ca; i++) {
		char what[CERTIFICATE_SHOWN_SIZE + 40];

		name_one(c->ca[i], i, what, sizeof what);
		if (gnutls_x509_crt_get_ca_status(c->ca[i], NULL) <= 0)
			check_say(c, CA_CERT, CHECK_BAD, "%s is not a CA's, so no client's certificate "
			          "can be by it", what);
	}
	check_list_dates(c, CA_CERT, c->ca, c->n_ca);
}

/* --- the server's ----------------------------------------------------------------- */

static void check_key(struct check *c)
{
	const struct key_text *text = &c->file[SERVER_KEY].text;
	uint8_t of_key[64], of_crt[64];
	size_t key_len = sizeof of_key, crt_len = sizeof of_crt;
	gnutls_datum_t pem = datum_of(text);
	gnutls_x509_privkey_t key;
	int r;

	if (!c->file[SERVER_KEY].there || gnutls_x509_privkey_init(&key) < 0)
		return;
	r = gnutls_x509_privkey_import2(key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (r >= 0)
		r = gnutls_x509_privkey_get_key_id(key, 0, of_key, &key_len);
	gnutls_x509_privkey_deinit(key);
	if (r < 0)
		check_say(c, SERVER_KEY, CHECK_BAD, "it is no key in PEM that can be read without a "
		          "password: %s", gnutls_strerror(r));
	else if (c->n_chain && gnutls_x509_crt_get_key_id(c->chain[0], 0, of_crt, &crt_len) == 0 &&
	         (key_len != crt_len || memcmp(of_key, of_crt, key_len) != 0))
		check_say(c, SERVER_KEY, CHECK_BAD, "it is not the key of the certificate in %s",
		          key_file_name(SERVER_CERT));
}

/* Each certificate was signed by the one behind it. */
static void check_chain(struct check *c)
{
	for (unsigned i = 0; i + 1 < c->n_chain; i++)
		if (!names_as_issuer(c->chain[i], c->chain[i + 1]) ||
		    !is_signed_by(c->chain[i], &c->chain[i + 1], 1))
			check_say(c, SERVER_CERT, CHECK_BAD, "certificate %u in it is not signed by the "
			          "one behind it", i + 1);
}

/* It may be by another CA than clients' certificates are; not by one that only has its name. */
static void check_issuer(struct check *c)
{
	gnutls_x509_crt_t last = c->chain[c->n_chain - 1];
	gnutls_datum_t issuer = { 0 };
	bool named = false;

	for (unsigned i = 0; i < c->n_ca; i++)
		named = named || names_as_issuer(last, c->ca[i]);
	if (named && !is_signed_by(last, c->ca, c->n_ca))
		check_say(c, SERVER_CERT, CHECK_BAD, "it is not signed by the CA in %s, though that has "
		          "the name of who signed it", key_file_name(CA_CERT));
	else if (!named && c->n_ca && !c->file[SERVER_CERT].n_findings &&
	         gnutls_x509_crt_get_issuer_dn3(last, &issuer, 0) >= 0)
		check_say(c, SERVER_CERT, CHECK_GOOD, "not by the CA in %s but by %.200s: that is whom "
		          "clients must trust", key_file_name(CA_CERT), (const char *) issuer.data);
	gnutls_free(issuer.data);
}

/* The name number `i` of a host or an address for people; "" for one of another kind. */
static bool host_of(gnutls_x509_crt_t crt, unsigned i, char *ret, size_t size)
{
	char name[256];
	size_t len = sizeof name;
	unsigned type;
	int r = gnutls_x509_crt_get_subject_alt_name2(crt, i, name, &len, &type, NULL);

	*ret = '\0';
	if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
		return false;
	if (r >= 0 && type == GNUTLS_SAN_DNSNAME)
		(void) snprintf(ret, size, "%.*s", (int) len, name);
	else if (r >= 0 && type == GNUTLS_SAN_IPADDRESS && (len == 4 || len == 16))
		(void) inet_ntop(len == 4 ? AF_INET : AF_INET6, name, ret, (socklen_t) size);
	return true;
}

/* "storage1, 192.0.2.7", as far as it fits. */
static void list_hosts(gnutls_x509_crt_t crt, char *ret, size_t size)
{
	char host[256];
	size_t at = 0;

	*ret = '\0';
	for (unsigned i = 0; at < size && host_of(crt, i, host, sizeof host); i++)
		if (*host)
			at += (size_t) snprintf(ret + at, size - at, "%s%s", at ? ", " : "", host);
}

static void check_hosts(struct check *c)
{
	char hosts[256];

	list_hosts(c->chain[0], hosts, sizeof hosts);
	for (size_t i = 0; i < c->wishes->n_hosts; i++)
		if (!gnutls_x509_crt_check_hostname(c->chain[0], c->wishes->host[i]))
			check_say(c, SERVER_CERT, CHECK_BAD, "it is not for %.200s%s%s%s",
			          c->wishes->host[i], *hosts ? " (but for " : "", hosts,
			          *hosts ? ")" : "");
}

void check_server(struct check *c)
{
	c->chain = read_list(c, SERVER_CERT, &c->n_chain);
	check_key(c);
	if (!c->n_chain)
		return;
	if (!gnutls_x509_crt_check_key_purpose(c->chain[0], GNUTLS_KP_TLS_WWW_SERVER, 0))
		check_say(c, SERVER_CERT, CHECK_BAD, "it is not for servers of TLS (its extended key "
		          "usage)");
	check_list_dates(c, SERVER_CERT, c->chain, c->n_chain);
	check_hosts(c);
	check_chain(c);
	check_issuer(c);
}

/* --- revoked ones ------------------------------------------------------------------ */

static void check_list(struct check *c, gnutls_x509_crl_t crl)
{
	time_t to = gnutls_x509_crl_get_next_update(crl);
	unsigned status = 0;

	if (c->n_ca && (gnutls_x509_crl_verify(crl, c->ca, c->n_ca, VERIFY_FLAGS, &status) < 0 ||
	                status != 0))
		check_say(c, CA_CRL, CHECK_BAD, "it is not signed by a CA in %s",
		          key_file_name(CA_CERT));
	if (to == (time_t) -1)
		return;                         /* it does not say until when */
	c->file[CA_CRL].ends = to;
	check_dates(c, CA_CRL, "the list", gnutls_x509_crl_get_this_update(crl), to);
	if (to < c->now)
		check_say(c, CA_CRL, CHECK_BAD, "so all certificates of clients are refused, until "
		          "there is a newer list");
}

void check_crl(struct check *c)
{
	gnutls_datum_t pem = datum_of(&c->file[CA_CRL].text);
	gnutls_x509_crl_t *lists = NULL;
	unsigned n = 0;
	int r;

	if (!c->file[CA_CRL].there)
		return;
	r = gnutls_x509_crl_list_import2(&lists, &n, &pem, GNUTLS_X509_FMT_PEM, 0);
	if (r < 0) {
		check_say(c, CA_CRL, CHECK_BAD, "it has no list of revoked certificates in PEM: %s",
		          gnutls_strerror(r));
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		check_list(c, lists[i]);
		gnutls_x509_crl_deinit(lists[i]);
	}
	gnutls_free(lists);
}

static void free_list(gnutls_x509_crt_t *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
}

void check_free_certificates(struct check *c)
{
	free_list(c->chain, c->n_chain);
	free_list(c->ca, c->n_ca);
}
