/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD URIs: nbd://HOST[:PORT]/NAME and nbd+unix:///NAME?socket=PATH, and with nbds the same over
 * TLS, as the NBD project has written them down.  Refuses what it does not know, such as
 * parameters that would be silently ignored.
 */
#pragma once

#include "base/failure.h"

#define NBD_URI_MAX 2048u               /* bytes; it must fit what the kernel keeps of a device */

struct nbd_uri {
	char text[NBD_URI_MAX + 1];     /* as it was given */
	char host[256], port[8];        /* "" for a unix socket */
	char socket[108];               /* "" for TCP */
	char name[NBD_URI_MAX + 1];     /* of the export, without escapes */
	char tls_host[256];             /* whom the certificate must name; "" without TLS */
};

/* -EINVAL and a sentence. */
int nbd_uri_parse(const char *text, struct nbd_uri *ret, struct failure *why);
