/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD_CMD_CACHE: a hint that a read comes soon.  With direct I/O there is no cache to fill, and
 * the hint is taken without effect; through the page cache it becomes read-ahead.
 */
#include <fcntl.h>

#include "export/actions.h"
#include "export/conn.h"

static void on_advised(struct op *op, int res, uint32_t flags)
{
	struct slot *slot = container_of(op, struct slot, op);

	(void) flags;
	(void) res;                     /* a hint that could not be followed is no error */
	slot->n_io--;
	slot_answer(slot, NBD_SUCCESS, NULL);
}

void start_cache(struct slot *slot)
{
	struct export *export = export_of(slot);
	struct io_uring_sqe *sqe;

	if (export->device.direct) {
		slot_answer(slot, NBD_SUCCESS, NULL);
		return;
	}
	sqe = ring_sqe(&export->ring);
	io_uring_prep_fadvise(sqe, export->device.fd, slot->req.offset,
	                      (uint32_t) slot->req.length, POSIX_FADV_WILLNEED);
	slot->n_io++;
	ring_start(&export->ring, sqe, &slot->op, on_advised);
}
