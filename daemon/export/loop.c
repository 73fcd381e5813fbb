/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/loop.h"

#include <errno.h>
#include <stdatomic.h>

#include "export/conn.h"
#include "export/export.h"
#include "export/look.h"

static void settle(void *userdata);
static void on_turn(struct letter *letter);
static void on_drained(struct letter *letter);
static void on_sizes(struct letter *letter);
static void device_failed(void *userdata, int error);

int loop_init(struct loop *loop, struct export *export, const struct engine *engine,
              uint64_t memory, unsigned n_clients, struct failure *why)
{
	uint32_t sector = export->device.sector;
	int r;

	/* What may be posted once more while it is on its way is never changed. */
	*loop = (struct loop) { .export = export, .n_clients = n_clients,
	                        .turn.open = on_turn, .drained.open = on_drained,
	                        .sizes.open = on_sizes };
	loop->starved_end = &loop->starved;
	flusher_init(&loop->flusher, loop);
	slot_pool_init(&loop->slots);
	promptness_init(&loop->promptness, &export->device);

	r = memory_init(&loop->memory, memory, n_clients, sector, why);
	if (r == 0)
		r = receive_init(&loop->buffers, n_clients, loop->memory.floor_size, why);
	if (r == 0)
		r = ring_init(&loop->ring, engine, 2 * RECEIVE_GROUP, why);
	loop->ring.settle = settle;
	loop->ring.device_failed = device_failed;
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

static void on_end(struct letter *letter)
{
	container_of(letter, struct loop, end)->ring.stop = true;
}

void loop_stop(struct loop *loop)
{
	if (!loop->runs)
		return;
	loop->end.open = on_end;
	mailbox_post(&loop->ring.mail, &loop->end);
	pthread_join(loop->thread, NULL);
	loop->runs = false;
}

/* The main thread again. */
static void on_alarm(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, alarm);
	int error = atomic_exchange(&loop->alarm_error, 0);

	loop->export->on_device_failed(loop->export, error);
}

/* The reply is not held up: whether the device is still there is the main thread's to find out. */
static void device_failed(void *userdata, int error)
{
	struct loop *loop = userdata;
	int none = 0;

	if (error == EINTR || error == EAGAIN || error == EOPNOTSUPP || error == ENOSYS ||
	    !atomic_compare_exchange_strong(&loop->alarm_error, &none, error ? error : EIO))
		return;
	loop->alarm.open = on_alarm;
	mailbox_post(&loop->export->mail, &loop->alarm);
}

/* The main thread again. */
static void on_drained(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, drained);

	export_loop_drained(loop->export, atomic_load(&loop->drained_round));
}

static void settle(void *userdata)
{
	struct loop *loop = userdata;

	conns_settle(loop);
	if (!loop->draining || loop->n_conns > 0 || loop->told)
		return;
	loop->told = true;
	atomic_store(&loop->drained_round, loop->round);
	mailbox_post_once(&loop->export->mail, &loop->drained);
}

static void begin_drain(struct loop *loop, enum reason reason)
{
	loop->told = false;
	loop->drain_reason = reason;
	loop->draining = true;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &loop->drain_began);
	for (struct conn *conn = loop->conns; conn; conn = conn->next)
		conn_unsettle(conn);
	loop_watch(loop);
}

static void end_drain(struct loop *loop)
{
	loop->draining = false;
	for (struct conn *conn = loop->conns; conn; conn = conn->next)
		conn_stay(conn, loop->drain_reason);
}

/* Several turns may have been wanted since it was posted: the last one counts. */
static void on_turn(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, turn);
	uint64_t wanted = atomic_load(&loop->wanted);
	enum reason reason = (enum reason) (uint32_t) wanted;

	if (loop->round == wanted >> 32)
		return;
	loop->round = (unsigned) (wanted >> 32);
	if (loop->draining)
		end_drain(loop);
	if (reason != REASON_NONE)
		begin_drain(loop, reason);
}

static void want(struct loop *loop, unsigned round, enum reason reason)
{
	atomic_store(&loop->wanted, (uint64_t) round << 32 | (uint32_t) reason);
	mailbox_post_once(&loop->ring.mail, &loop->turn);
}

void loop_drain(struct loop *loop, unsigned round, enum reason reason)
{
	want(loop, round, reason);
}

void loop_resume(struct loop *loop, unsigned round)
{
	want(loop, round, REASON_NONE);
}

static void on_sizes(struct letter *letter)
{
	struct loop *loop = container_of(letter, struct loop, sizes);

	for (struct conn *conn = loop->conns; conn; conn = conn->next)
		if (client_is_outgrown(conn))
			conn_retire(conn, REASON_RESIZED);
}

void loop_check_sizes(struct loop *loop)
{
	mailbox_post_once(&loop->ring.mail, &loop->sizes);
}

/* Spare floors and buffers do no harm where only one of the two could be had. */
int loop_grow(struct loop *loop, unsigned n)
{
	int r = memory_grow(&loop->memory, n);

	return r < 0 ? r : receive_grow(&loop->buffers, n);
}
