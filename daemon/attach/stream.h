/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection to a server, read and written in whole pieces, within a deadline that nothing the
 * server does can put off.
 */
#pragma once

#include <netdb.h>
#include <stddef.h>

#include "attach/client.h"

struct stream {
	int fd;                         /* non-blocking; the caller's */
	const struct client_limits *limits;
};

/* A connected, non-blocking socket for the caller; TCP with keepalives, and without delay. */
int stream_connect(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                   struct failure *why);

/* The first address that answers, each with its share of the time that is left; what is told is why
 * the last did not. */
int stream_connect_first(const struct addrinfo *all, const struct client_limits *limits,
                         int *ret_fd, struct failure *why);

int stream_make_blocking(int fd, struct failure *why);

/* Until the descriptor has one of these of poll(2), the deadline, or the end. */
int stream_wait(int fd, short events, const struct client_limits *limits, struct failure *why);

/* Exactly `len` bytes, and not one more from the socket; -ECONNRESET where it ends before. */
int stream_read(const struct stream *s, void *ret, size_t len, struct failure *why);
int stream_write(const struct stream *s, const void *from, size_t len, struct failure *why);
