/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is at the other end of a socket, as data: for access rules and for limits on sources.
 *
 * An IPv4 peer of a socket for both families is an IPv4 peer.  What people read is
 * format_peer() in base/text.h; peer_parse() reads that back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum peer_kind {
	PEER_UNKNOWN,
	PEER_LOCAL,                     /* a unix socket's */
	PEER_IPV4,
	PEER_IPV6,
	PEER_VSOCK,
};

struct peer {
	enum peer_kind kind;
	uint8_t address[16];            /* as on the wire; of IPv4 the first four bytes */
	uint32_t id;                    /* a unix socket's user, a vsock's context */
};

/* The peer of a connected socket. */
void peer_of(int fd, struct peer *ret);

/* The peer that format_peer() wrote `text` about. */
void peer_parse(struct span text, struct peer *ret);

/*
 * Which of the others count as one source with it: an IPv4 address, a /64 of IPv6, which is
 * what one machine can have for itself, a user of this machine, a virtual machine.
 */
void peer_source(const struct peer *peer, struct peer *ret);

/* Of sources, or of peers without their ports. */
bool peer_equal(const struct peer *a, const struct peer *b);

/* A source for people: "192.0.2.1", "2001:db8::/64", "user 1000", "vsock context 3". */
#define PEER_SOURCE_TEXT_SIZE 64u
void peer_format_source(const struct peer *source, char *ret, size_t size);
