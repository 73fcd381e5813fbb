/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device I/O of one piece: starts it, goes on after short transfers, tells when it is over.
 *
 * Whole sectors go to the descriptor that bypasses the page cache; the tail behind the last
 * whole sector of a file goes through the buffered one, and is synced when written.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct piece;

/* `done` gets 0 or a positive errno, always later.  While it is under way the piece
 * counts in slot->n_io; it no longer does when `done` runs.  (One that was evicted and is read
 * again does not: its reply is queued already.) */
typedef void (*piece_done)(struct piece *piece, int error);

/* Reads piece->length bytes at piece->start into its buffer. */
void piece_read(struct piece *piece, piece_done done);

/* Reads `length` bytes at device offset `start` into `at`, inside the piece's buffer. */
void piece_read_part(struct piece *piece, uint8_t *at, uint64_t start, uint32_t length,
                     piece_done done);

/* Writes the piece; `durable` makes it FUA. */
void piece_write(struct piece *piece, bool durable, piece_done done);
