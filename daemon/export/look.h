/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices that the device has become larger or smaller, read-only or writable again.
 *
 * NBD cannot tell a client: each keeps the size that it was granted, and new ones get the new.
 * So the device's size only is what is offered.  A client that has more than there is left is
 * closed, and with ResizeReconnect= one that has less: it connects again.
 *
 * Who looks: device-events.h as soon as the kernel tells of a change, pulse.h every few seconds
 * while clients are served, and whoever is about to admit a client.  The main thread's.
 */
#pragma once

#include <stdbool.h>

struct conn;
struct export;

/* Whether what is to be offered has changed since; then it is in the log. */
bool export_look(struct export *export);

/* A loop's thread: what the client was granted is not what it should have now. */
bool client_is_outgrown(const struct conn *conn);
