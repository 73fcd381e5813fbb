/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_CACHE: a hint that a read comes soon.  With direct I/O there is no cache to fill, and
 * the hint is taken without effect; through the page cache it becomes read-ahead.
 */
#include <fcntl.h>

#include "export/actions.h"
#include "export/conn.h"

static void on_advised(struct op *op, int res, int buffer)
{
	struct slot *slot = container_of(op, struct slot, op);

	(void) buffer;
	(void) res;                     /* a hint that could not be followed is no error */
	slot->n_io--;
	slot_answer(slot, NBD_SUCCESS, NULL);
}

void start_cache(struct slot *slot)
{
	struct export *export = export_of(slot);

	if (export->device.direct) {
		slot_answer(slot, NBD_SUCCESS, NULL);
		return;
	}
	slot->n_io++;
	ring_advise(&loop_of(slot)->ring, &slot->op, on_advised, export->device.fd,
	            POSIX_FADV_WILLNEED, slot->req.offset, (uint32_t) slot->req.length);
}
