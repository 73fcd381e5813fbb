/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of a device, held beside the kernel for one purpose: to abort those that it gave
 * up.
 *
 * The kernel sends the requests of a dead connection again over another, but keeps the dead one
 * open until a new one takes its place; what TCP had not delivered by then it would still
 * deliver, perhaps after a newer WRITE to the same place was acknowledged.  Aborted, it has
 * nothing to deliver.
 */
#pragma once

#include <stddef.h>

#include "netlink/nbd-driver.h"

struct held_sockets {
	int fds[NBD_MAX_SOCKETS];       /* -1: none */
};

void held_sockets_init(struct held_sockets *h);

/* Takes the descriptor over; one for which there is no room is closed. */
void held_sockets_add(struct held_sockets *h, int fd);

/* Aborts and closes those that were shut down; how many. */
size_t held_sockets_abort_dead(struct held_sockets *h);

/* Closes all; the kernel goes on with them. */
void held_sockets_close(struct held_sockets *h);
