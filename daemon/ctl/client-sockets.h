/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets that clients connect to.  nbdctl holds them, so that a negotiator that
 * dies leaves nobody with "connection refused"; it never accepts from them itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/failure.h"
#include "base/tls-settings.h"

struct client_socket {
	char *path;             /* of a unix socket, absolute; NULL for TCP */
	dev_t dev;              /* the socket's file, so that only our own is removed */
	ino_t ino;
};

struct client_sockets {
	int *fds;               /* listening; in one array, as they are passed on */
	struct client_socket *about;
	size_t n;
};

/* Begin to listen.  On failure the ones made before stay, for client_sockets_close(). */
int client_sockets_add_tcp(struct client_sockets *all, const char *address, struct failure *why);
int client_sockets_add_unix(struct client_sockets *all, const char *path, struct failure *why);

/* "serving NAME at URI", a line for each socket and each way that `tls` allows. */
void client_sockets_print(const struct client_sockets *all, const char *export_name,
                          enum tls_policy tls, FILE *to);

/* Stops listening and removes the sockets' files. */
void client_sockets_close(struct client_sockets *all);

/* Whether every address that ADDRESS:PORT stands for is a loopback address.  True also for what
 * cannot be resolved: listening on it will fail with a better sentence. */
bool client_address_is_loopback(const char *address_and_port);
