/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The last replies on their way to a client by TCP.
 *
 * A socket that is closed with bytes unread, or is sent some afterwards, answers with a reset, and
 * what the kernel had taken of us and the client not yet is lost.  So the client is told the end of
 * file first, and what it still sends is thrown away until it closes as well: for as long as it
 * goes on taking what was said, as in a drain, and CONN_LINGER_SECONDS more (watch.c looks).
 */
#pragma once

#include <stdbool.h>

struct conn;

/* Of `undelivered`: the end of file counts as a byte. */
#define LINGER_LAST 1

/* All is said: whether to wait for the client to take it, and throw away what comes. */
bool linger(struct conn *conn);

/* Whether the client has taken something since the last call. */
bool linger_advanced(struct conn *conn);
