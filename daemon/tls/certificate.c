/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names in a certificate decide what a client may do, so one that holds what is not text, or
 * more than fits, is refused: nothing is ever left out or cut.
 */
#include "tls/certificate.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/text.h"

static void free_certificate(gnutls_x509_crt_t *crt)
{
	if (*crt)
		gnutls_x509_crt_deinit(*crt);
}

#define AUTO_CERTIFICATE __attribute__((cleanup(free_certificate))) gnutls_x509_crt_t

/* The client's own; NULL without one. */
static gnutls_x509_crt_t peers_certificate(gnutls_session_t tls)
{
	unsigned n = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(tls, &n);
	gnutls_x509_crt_t crt = NULL;

	if (!chain || n == 0 || gnutls_x509_crt_init(&crt) < 0)
		return NULL;
	if (gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER) < 0) {
		gnutls_x509_crt_deinit(crt);
		return NULL;
	}
	return crt;
}

void certificate_show(gnutls_x509_crt_t crt, char *ret, size_t size)
{
	gnutls_datum_t dn = { 0 };

	if (gnutls_x509_crt_get_dn3(crt, &dn, 0) >= 0 && dn.size)
		printable((struct span) { .at = dn.data, .len = dn.size }, size - 4, ret, size);
	else
		snprintf(ret, size, "(without a name)");
	gnutls_free(dn.data);
}

/* Copies it into the store.  False when it does not fit, or is not text. */
static bool keep(struct identity_store *store, const char *prefix, struct span text,
                 struct span *ret)
{
	size_t len = strlen(prefix) + text.len;
	char *at = store->text + store->len;

	for (size_t i = 0; i < text.len; i++)
		if (text.at[i] < 0x20 || text.at[i] == 0x7f)
			return false;
	if (len > sizeof store->text - store->len)
		return false;
	memcpy(at, prefix, strlen(prefix));
	if (text.len)
		memcpy(at + strlen(prefix), text.at, text.len);
	store->len += len;
	*ret = (struct span) { .at = (uint8_t *) at, .len = len };
	return true;
}

static bool keep_address(struct identity_store *store, const uint8_t *at, size_t len,
                         struct span *ret)
{
	char text[INET6_ADDRSTRLEN];

	if ((len != 4 && len != 16) ||
	    !inet_ntop(len == 4 ? AF_INET : AF_INET6, at, text, sizeof text))
		return false;
	return keep(store, "ip:", span_of(text), ret);
}

/* Other kinds of names are not told, since no rule could name them. */
static bool keep_name(struct identity_store *store, unsigned type, const uint8_t *at, size_t len,
                      struct tls_identity *ret)
{
	const struct span text = { .at = at, .len = len };
	struct span *name = &ret->names[ret->n_names];
	bool kept;

	if (type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_RFC822NAME &&
	    type != GNUTLS_SAN_URI && type != GNUTLS_SAN_IPADDRESS)
		return true;
	if (ret->n_names == TLS_MAX_NAMES)
		return false;
	if (type == GNUTLS_SAN_IPADDRESS)
		kept = keep_address(store, at, len, name);
	else
		kept = keep(store, type == GNUTLS_SAN_DNSNAME ? "dns:" :
		            type == GNUTLS_SAN_URI ? "uri:" : "email:", text, name);
	ret->n_names += kept;
	return kept;
}

static bool keep_names(gnutls_x509_crt_t crt, struct identity_store *store,
                       struct tls_identity *ret)
{
	uint8_t name[TLS_NAME_MAX];

	for (unsigned i = 0;; i++) {
		size_t len = sizeof name;
		unsigned type;
		int r = gnutls_x509_crt_get_subject_alt_name2(crt, i, name, &len, &type, NULL);

		if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			return true;
		if (r < 0 || !keep_name(store, type, name, len, ret))
			return false;
	}
}

static bool keep_fingerprint(gnutls_x509_crt_t crt, struct identity_store *store,
                             struct tls_identity *ret)
{
	uint8_t hash[32];
	char hex[2 * sizeof hash + 1];
	size_t len = sizeof hash;

	if (gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, hash, &len) < 0 ||
	    len != sizeof hash)
		return false;
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	return keep(store, "", span_of(hex), &ret->fingerprint);
}

static const char *identity_of(gnutls_x509_crt_t crt, struct identity_store *store,
                               struct tls_identity *ret)
{
	gnutls_datum_t dn = { 0 };
	bool kept;
	int r;

	*ret = (struct tls_identity) { .method = TLS_METHOD_X509 };
	store->len = 0;
	r = gnutls_x509_crt_get_dn3(crt, &dn, 0);
	if (r < 0 && r != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
		return gnutls_strerror(r);
	kept = keep(store, "", (struct span) { .at = dn.data, .len = dn.size }, &ret->subject) &&
		keep_fingerprint(crt, store, ret) && keep_names(crt, store, ret);
	gnutls_free(dn.data);
	if (!kept)
		return "its names are not text, or too many, or too long";
	return check_tls_identity(ret);
}

static int refuse(struct certificate_session *session, gnutls_x509_crt_t crt, const char *cause)
{
	char subject[CERTIFICATE_SHOWN_SIZE] = "(unreadable)";

	if (crt)
		certificate_show(crt, subject, sizeof subject);
	session->refused = true;
	snprintf(session->sentence, sizeof session->sentence,
	         "its certificate, %s, was refused: %s", subject, cause);
	return GNUTLS_E_CERTIFICATE_ERROR;
}

static int refuse_status(struct certificate_session *session, gnutls_x509_crt_t crt,
                         unsigned status)
{
	gnutls_datum_t words = { 0 };
	int r = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0);

	r = refuse(session, crt, r < 0 ? gnutls_strerror(r) : (const char *) words.data);
	gnutls_free(words.data);
	return r;
}

int certificate_verify(gnutls_session_t tls)
{
	struct certificate_session *session = gnutls_session_get_ptr(tls);
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (uint8_t *) GNUTLS_KP_TLS_WWW_CLIENT,
	};
	AUTO_FREE struct identity_store *store = NULL;
	AUTO_CERTIFICATE crt = NULL;
	struct tls_identity identity;
	unsigned n = 0, status = 0;
	const char *fault;
	int r;

	if (!gnutls_certificate_get_peers(tls, &n) || n == 0)
		return 0;               /* whether one is required is GnuTLS's to say */
	crt = peers_certificate(tls);
	if (!crt)
		return refuse(session, NULL, "it cannot be read");
	r = gnutls_certificate_verify_peers(tls, &purpose, 1, &status);
	if (r < 0)
		return refuse(session, crt, gnutls_strerror(r));
	if (status)
		return refuse_status(session, crt, status);
	store = malloc(sizeof *store);
	fault = store ? identity_of(crt, store, &identity) : "there is no memory";
	return fault ? refuse(session, crt, fault) : 0;
}

const char *certificate_identity(gnutls_session_t tls, struct identity_store *store,
                                 struct tls_identity *ret)
{
	AUTO_CERTIFICATE crt = NULL;
	const char *psk;

	*ret = (struct tls_identity) { .method = TLS_METHOD_ANONYMOUS };
	if (gnutls_auth_get_type(tls) == GNUTLS_CRD_PSK) {
		ret->method = TLS_METHOD_PSK;
		psk = gnutls_psk_server_get_username(tls);
		store->len = 0;
		if (!psk || !keep(store, "", span_of(psk), &ret->psk))
			return "the identity of its key is not text";
		return check_tls_identity(ret);
	}
	crt = peers_certificate(tls);
	return crt ? identity_of(crt, store, ret) : NULL;
}
