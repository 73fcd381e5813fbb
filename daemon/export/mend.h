/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes of any offset and length, on a device that takes whole sectors.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "export/io.h"

struct piece;
struct slot;

/*
 * A piece for the client's bytes from `at` to `end` or less, with a buffer for their sectors
 * and room to mend both edges.  NULL with *ret_again set while there is no memory; NULL
 * without it when malloc failed.  The piece is written with mend_write(), or dropped.
 */
struct piece *mend_piece(struct slot *slot, uint64_t at, uint64_t end, bool *ret_again);

/*
 * Writes the piece, whose bytes from data_at on are in its buffer: waits for its turn (order.h),
 * reads what the client did not send of the first and the last sector, writes.  `done` owns
 * the piece again; while all this is under way it counts in slot->n_io.
 */
void mend_write(struct piece *piece, bool durable, piece_done done);

/* Gives up the piece, its buffer and its turn. */
void mend_drop(struct piece *piece);
