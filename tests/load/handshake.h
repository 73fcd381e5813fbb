/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of the handshake: fixed newstyle, up to the reply to GO.  A server that
 * refuses or breaks the protocol ends the program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "protocol.h"
#include "settings.h"

struct peer {
	int fd;                         /* blocking; the caller's to close */
	enum mode mode;
	uint64_t size;
	uint16_t flags;
	uint32_t min_block;             /* 1 unless the server told */
	uint32_t max_block;
	uint32_t context;               /* the id of base:allocation, when asked for */
};

void peer_open(const struct address *address, const struct settings *settings, bool want_status,
               struct peer *ret_peer);

/* DISC and close. */
void peer_close(struct peer *peer);

/* Sends or receives all of n bytes, or gives up. */
void send_all(int fd, const void *bytes, size_t n);
void receive_all(int fd, void *bytes, size_t n);
