/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD_CMD_READ: device to reply in pieces; see read.c. */
#pragma once

#include <stdbool.h>

struct piece;

/* The buffer of this queued piece was given up: reads it once more, then sends on. */
void read_again(struct piece *piece);

/* The same for one that had to wait; false while there still is no memory for it. */
bool read_again_now(struct piece *piece);
