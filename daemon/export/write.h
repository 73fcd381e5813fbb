/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD_CMD_WRITE: payload to device in pieces; see write.c. */
#pragma once

#include <stdint.h>

struct piece;
struct slot;

/* The header passed its check and conn->payload_left bytes follow: makes conn->filling. */
void start_write_payload(struct slot *slot);

/* `n` more bytes of the piece have arrived. */
void write_filled(struct piece *piece, uint32_t n);

/* The connection died while the piece was being filled. */
void write_abandon(struct piece *piece);
