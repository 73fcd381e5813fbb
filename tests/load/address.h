/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a server is: "unix:PATH" or "tcp:HOST:PORT" with a numeric host.  Gives up, naming
 * the address, when it cannot be used.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

struct address {
	const char *text;               /* as written; borrowed */
	struct sockaddr_storage socket;
	socklen_t size;
};

void address_parse(const char *text, struct address *ret_address);

/* A connected socket, blocking, with TCP_NODELAY; a buffer of 0 is the kernel's choice. */
int address_connect(const struct address *address, uint64_t socket_buffer);

/* A listening socket. */
int address_listen(const struct address *address, uint64_t socket_buffer);
