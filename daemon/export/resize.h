/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices that the device has become larger or smaller.
 *
 * NBD cannot tell a client: each keeps the size that it was granted, and new ones get the new.
 * So the device's size is only what is offered.  The main thread's.
 */
#pragma once

#include <stdbool.h>

struct export;

/* Whether the size to offer has changed since; then it is in the log. */
bool export_look_at_size(struct export *export);
