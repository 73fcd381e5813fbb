/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "export/conn.h"

static void settle(void *userdata);

int export_init(struct export *export, const struct export_settings *settings,
                const struct device *device, const char *state_dir, struct failure *why)
{
	unsigned n = settings->max_connections;
	int r;

	*export = (struct export) { .settings = settings, .device = *device };
	export->starved_end = &export->starved;
	order_init(&export->order);
	flusher_init(&export->flusher);
	slot_pool_init(&export->slots);
	pool_init(&export->pool);

	r = mailbox_init(&export->mail, why);
	if (r == 0)
		r = memory_init(&export->memory, settings->memory, n, export->device.sector, why);
	if (r == 0)
		r = receive_init(&export->buffers, n, export->memory.floor_size, why);
	if (r == 0)
		r = ring_init(&export->ring, 2 * RECEIVE_GROUP, why);
	if (r == 0)
		r = latch_open(&export->latch, state_dir, export->device.identity, why);
	export->ring.settle = settle;
	export->ring.userdata = export;
	return r;
}

void export_deinit(struct export *export)
{
	pool_deinit(&export->pool);
	ring_deinit(&export->ring);
	receive_deinit(&export->buffers);
	memory_deinit(&export->memory);
	slot_pool_deinit(&export->slots);
	latch_close(&export->latch);
	device_close(&export->device);
	mailbox_deinit(&export->mail);
}

static void on_drained(struct letter *letter)
{
	struct export *export = container_of(letter, struct export, drained);

	export->on_drained(export);
}

/* Nobody is connected and nothing is in flight: flush, say so, and leave the ring. */
static void on_last_flush(struct op *op, int res, uint32_t flags)
{
	struct flusher *flusher = container_of(op, struct flusher, op);
	struct export *export = container_of(flusher, struct export, flusher);

	(void) flags;
	if (res < 0)
		flush_failed(export, -res, "flushing the device at the end failed");
	export->last_flush_failed = res < 0;
	export->ring.stop = true;
	export->drained.open = on_drained;
	mailbox_post(&export->mail, &export->drained);
}

static void finish_drain(struct export *export)
{
	struct io_uring_sqe *sqe;

	if (export->flusher.op.in_flight || export->ring.stop)
		return;
	sqe = ring_sqe(&export->ring);
	io_uring_prep_fsync(sqe, export->device.fd, IORING_FSYNC_DATASYNC);
	ring_start(&export->ring, sqe, &export->flusher.op, on_last_flush);
}

static void settle(void *userdata)
{
	struct export *export = userdata;

	conns_settle(export);
	if (export->draining && export->n_conns == 0)
		finish_drain(export);
}

static void on_drain(struct letter *letter)
{
	struct export *export = container_of(letter, struct export, drained);

	export->draining = true;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &export->drain_began);
	for (struct conn *conn = export->conns; conn; conn = conn->next)
		conn_unsettle(conn);
	export_watch(export);
}

void export_drain(struct export *export)
{
	export->drained.open = on_drain;
	mailbox_post(&export->ring.mail, &export->drained);
}

void export_run(struct export *export)
{
	ring_run(&export->ring);
}
