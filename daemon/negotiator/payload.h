/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The payload of one option while it arrives, and the budget that all clients share.
 *
 * A buffer grows with the bytes that have come, never by the length a client announced.  The
 * first few KiB of each are free, so that clients with ordinary options never wait for those
 * with enormous ones.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define PAYLOAD_FREE 8192u              /* bytes per client outside the budget */
#define PAYLOAD_BUDGET (64u << 20)      /* bytes over all clients */

struct payload_budget {
	size_t limit;
	size_t used;
};

struct payload {
	uint8_t *at;
	size_t len;                     /* arrived */
	size_t size;                    /* of the buffer */
};

/* Room for more of a payload of `total` bytes.  0; -EAGAIN when the budget is used up;
 * -ENOMEM. */
int payload_make_room(struct payload *p, struct payload_budget *budget, size_t total);

/* True when the budget has more now than before. */
bool payload_clear(struct payload *p, struct payload_budget *budget);

static inline struct bytes payload_bytes(const struct payload *p)
{
	return bytes_over(p->at, p->len);
}
