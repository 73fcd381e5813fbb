/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A session in which we are the client, of a server whose export is attached here.  It is always
 * checked: its certificate, against ca-cert.pem, and the name in it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "tls/session.h"

/* RFC 6066: an address is no name to send. */
static bool is_address(const char *host)
{
	uint8_t address[16];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

int prepare_as_client(struct session *s)
{
	struct credentials *c = s->about.credentials;
	int r = gnutls_init(&s->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);

	if (r >= 0)
		r = gnutls_priority_set(s->tls, c->priority);
	if (r >= 0)
		r = gnutls_credentials_set(s->tls, GNUTLS_CRD_CERTIFICATE, c->client);
	if (r >= 0 && !is_address(s->host))
		r = gnutls_server_name_set(s->tls, GNUTLS_NAME_DNS, s->host, strlen(s->host));
	if (r < 0)
		return r;
	gnutls_session_set_ptr(s->tls, &s->about);
	gnutls_session_set_verify_cert(s->tls, s->host, 0);
	transport_attach(s);
	return 0;
}

bool server_is_refused(const struct session *session, char *ret, size_t size)
{
	unsigned status = gnutls_session_get_verify_cert_status(session->tls);
	gnutls_datum_t words = { 0 };

	if (status == 0 || status == (unsigned) -1)
		return false;
	if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0) < 0)
		words.data = NULL;
	(void) snprintf(ret, size, "the certificate of the server %.200s was refused: %s",
	                session->host, words.data ? (const char *) words.data : "it is not good");
	gnutls_free(words.data);
	return true;
}
