/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From replies to the socket: those that are ready together leave in one send.
 *
 * Under pressure a client that does not read its replies gives their memory up: what was read
 * for it is dropped (evicted), and read again when it goes on.
 */
#pragma once

#include <stdbool.h>

struct conn;
struct out;

/* Appends to the connection's queue; sent before the ring sleeps.  On a dead connection it is
 * dropped then, behind what a send that is still under way refers to. */
void conn_queue(struct conn *conn, struct out *out);

/* Sends what is queued, unless a send is under way. */
void conn_send(struct conn *conn);

/* Takes back the memory of READ replies that are waiting. */
void conn_evict(struct conn *conn);

/* Drops what is queued.  True when the send under way has ended too. */
bool conn_stop_sending(struct conn *conn);
