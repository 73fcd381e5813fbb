/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of a device, held beside the kernel to abort those that it gave up, and to know which
 * of its connections are ours.
 *
 * The kernel sends the requests of a dead connection again over another, but keeps the dead one
 * open until a new one takes its place; what TCP had not delivered by then it would still
 * deliver, perhaps after a newer WRITE to the same place was acknowledged.  Aborted, it has
 * nothing to deliver.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "netlink/nbd-driver.h"

struct held_socket {
	int fd;                         /* -1: none */
	uint64_t size;                  /* that the server told over it */
	sd_event_source *end;
};

struct held_sockets {
	sd_event *event;
	struct held_socket all[NBD_MAX_SOCKETS];
};

/* From the event loop dead ones are aborted at once.  It is borrowed; NULL: only when asked. */
void held_sockets_init(struct held_sockets *h, sd_event *event);

/* Takes the descriptor over; one for which there is no room is closed. */
void held_sockets_add(struct held_sockets *h, int fd, uint64_t size);

/* Aborts and closes those that were shut down; how many. */
size_t held_sockets_abort_dead(struct held_sockets *h);

/* Whether `n` are held, and the smallest size that was told over them. */
bool held_sockets_least(const struct held_sockets *h, size_t n, uint64_t *ret);

/* Closes all; the kernel goes on with them. */
void held_sockets_close(struct held_sockets *h);
