/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of the handshake: fixed newstyle, TLS if asked for, up to the reply to GO.  A server that
 * refuses or breaks the protocol ends the program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "protocol.h"
#include "settings.h"
#include "stream.h"

struct peer {
	struct stream stream;           /* blocking; closed by peer_close() */
	enum mode mode;
	uint64_t size;
	uint16_t flags;
	uint32_t min_block;             /* 1 unless the server told */
	uint32_t max_block;
	uint32_t context;               /* the id of the one that was asked for */
};

void peer_open(const struct address *address, const struct settings *settings, bool want_status,
               struct peer *ret_peer);

/* DISC and close. */
void peer_close(struct peer *peer);
