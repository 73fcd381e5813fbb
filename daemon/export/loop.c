/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/loop.h"

#include <errno.h>

#include "export/conn.h"
#include "export/export.h"

static void settle(void *userdata);

int loop_init(struct loop *loop, struct export *export, const struct engine *engine,
              uint64_t memory, unsigned n_clients, struct failure *why)
{
	uint32_t sector = export->device.sector;
	int r;

	*loop = (struct loop) { .export = export };
	loop->starved_end = &loop->starved;
	flusher_init(&loop->flusher);
	slot_pool_init(&loop->slots);
	promptness_init(&loop->promptness, &export->device);

	r = memory_init(&loop->memory, memory, n_clients, sector, why);
	if (r == 0)
		r = receive_init(&loop->buffers, n_clients, loop->memory.floor_size, why);
	if (r == 0)
		r = ring_init(&loop->ring, engine, 2 * RECEIVE_GROUP, why);
	loop->ring.settle = settle;
	loop->ring.userdata = loop;
	return r;
}

void loop_deinit(struct loop *loop)
{
	ring_deinit(&loop->ring);
	receive_deinit(&loop->buffers);
	memory_deinit(&loop->memory);
	slot_pool_deinit(&loop->slots);
}

static void *run(void *userdata)
{
	struct loop *loop = userdata;

	(void) pthread_setname_np(pthread_self(), "ring");
	ring_run(&loop->ring);
	return NULL;
}

int loop_start(struct loop *loop, struct failure *why)
{
	int r = pthread_create(&loop->thread, NULL, run, loop);

	if (r != 0)
		return fail(why, r, "cannot start a ring's thread");
	loop->runs = true;
	return 0;
}

/* The main thread again. */
static void on_drained(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, drained);

	export_loop_drained(loop->export, loop);
}

static void settle(void *userdata)
{
	struct loop *loop = userdata;

	conns_settle(loop);
	/* Who waits for memory, or for the end, waits for what was just sent, too. */
	if (loop->starved || loop->draining)
		loop->ring.n_prompt = 0;
	if (!loop->draining || loop->n_conns > 0 || loop->ring.stop)
		return;
	loop->ring.stop = true;
	loop->drained.open = on_drained;
	mailbox_post(&loop->export->mail, &loop->drained);
}

static void on_drain(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, drained);

	loop->draining = true;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &loop->drain_began);
	for (struct conn *conn = loop->conns; conn; conn = conn->next)
		conn_unsettle(conn);
	loop_watch(loop);
}

void loop_drain(struct loop *loop)
{
	loop->drained.open = on_drain;
	mailbox_post(&loop->ring.mail, &loop->drained);
}
