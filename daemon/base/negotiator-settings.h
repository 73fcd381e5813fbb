/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The negotiator's own file, negotiator.conf: section [Negotiator], every key and its
 * default.  negotiator.conf(5) describes the keys for people.
 */
#pragma once

#include <stdint.h>

#include "base/failure.h"
#include "base/tls-settings.h"

struct negotiator_settings {
	char *allow;                    /* Allow=: for exports without their own; "" if not given */
	char *identity;                 /* Identity=: likewise, a rule each line */
	enum tls_policy tls;            /* TLS=: off */
	enum client_certificate client_certificate;     /* ClientCertificate= */
	uint32_t max_clients;           /* MaxClients=: 10000, being served, by all exports */
	uint32_t max_clients_per_source;        /* MaxClientsPerSource=: 0, as many as fit */
	uint32_t max_handshakes;        /* MaxHandshakes=: 1024 */
	uint32_t max_handshakes_per_source;     /* MaxHandshakesPerSource=: 256 */
	uint32_t handshake_timeout;     /* HandshakeTimeout=: 10 seconds */
	uint32_t start_timeout;         /* StartTimeout=: 5 seconds, for an export to answer */
};

/* What holds without a file.  -ENOMEM. */
int negotiator_settings_default(struct negotiator_settings *ret, struct failure *why);

/* `ret` is untouched on failure; -ENOENT when there is no such file. */
int negotiator_settings_read(const char *path, struct negotiator_settings *ret,
                             struct failure *why);
void negotiator_settings_clear(struct negotiator_settings *s);

/* 1 if it can be read and is good, 0 without such a file; else as negotiator_settings_read(). */
int negotiator_settings_check(const char *path, struct failure *why);
