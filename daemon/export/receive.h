/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the socket to requests.
 *
 * An idle connection costs no buffer: its receive waits in the kernel, which picks one
 * from the ring's group when bytes arrive.  One receive may bring many requests; all are
 * started before the buffer goes back.  The payload of a large WRITE is received straight
 * into the buffer that goes to the device; what came along with headers is copied once.
 */
#pragma once

#include <stdint.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "export/mappings.h"
#include "export/ring.h"

struct conn;
struct slot;

/* As many buffers as connections, which may each keep one while they are blocked, and some
 * for the kernel to pick from.  Only those that are used are ever committed. */
struct receive_buffers {
	struct mappings mappings;
	uint8_t **at;                   /* by number */
	uint32_t size;                  /* bytes of one buffer */
	unsigned n, n_given;            /* in all; with the kernel now */
	uint16_t *free;                 /* a stack: the warmest is used first */
	unsigned n_free;
};

#define RECEIVE_GROUP EXPORT_RECEIVE_GROUP      /* buffers the kernel may hold at once */

int receive_init(struct receive_buffers *buffers, unsigned n_clients, uint32_t size,
                 struct failure *why);
void receive_deinit(struct receive_buffers *buffers);

/* For `n` more clients.  -ENOMEM, and nothing has changed. */
int receive_grow(struct receive_buffers *buffers, unsigned n);

/* Gives memory of buffers that are not in use back to the system. */
void receive_cool(struct receive_buffers *buffers);

/* Looks at what is pending, if there is room for it now, and receives more. */
void conn_receive(struct conn *conn);

/* The connection ends: gives back a buffer and a half-received request.  True when the
 * receive has ended too. */
bool conn_stop_receiving(struct conn *conn);

/* The payload of a request that failed its check is dropped, then the error is answered. */
void receive_discard(struct slot *slot);
