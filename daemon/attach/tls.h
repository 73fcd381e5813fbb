/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS to a server, by nbd-tls, which has the keys: it is given the socket and gives back a plain
 * one.
 */
#pragma once

#include "attach/client.h"

/*
 * *fd is a connection on which the server waits for the TLS handshake; the plain end takes its
 * place. `host` is whom the server's certificate must name.
 */
int tls_connect(int *fd, const char *host, const struct client_limits *limits, struct failure *why);
