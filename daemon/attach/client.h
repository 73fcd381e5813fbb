/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of NBD as far as the kernel needs one: it connects and negotiates until the
 * transmission phase, and gives the socket away.
 *
 * It asks for no structured replies: the kernel's driver does not speak them.  The server is
 * hostile: what it says is bounded, and all together has a deadline.
 */
#pragma once

#include <stdint.h>

#include "attach/uri.h"
#include "base/failure.h"
#include "wire/answer.h"

struct client_limits {
	uint64_t deadline;              /* of monotonic_us(): when all must be done, but for
	                                 * finding the host: getaddrinfo(3) takes as long as
	                                 * resolv.conf(5) says, and cannot be canceled */
	int cancel_fd;                  /* once readable it ends with -ECANCELED; -1: none */
};

/*
 * A socket in the transmission phase, blocking and close-on-exec, which the caller closes, and
 * what the server said of the export.  What the server refuses comes with its own sentence.
 */
int client_connect(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                   struct export_facts *ret, struct failure *why);

/* The handshake alone, on a connected, non-blocking socket that stays the caller's. */
int client_negotiate(int fd, const char *name, const struct client_limits *limits,
                     struct export_facts *ret, struct failure *why);
