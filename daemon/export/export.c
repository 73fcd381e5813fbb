/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/export.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "dirty/tracker.h"
#include "export/engine.h"
#include "export/flush.h"
#include "export/loop.h"

#define JOB_THREADS 4u
#define DISCARD_THREADS 4u

/* An engine works if a ring of it can be made here. */
static int try_engine(const struct engine *engine, struct failure *why)
{
	struct ring ring;
	int r = ring_init(&ring, engine, 1, why);

	ring_deinit(&ring);
	return r;
}

/* Engine=: by itself, io_uring where there is one. */
static int choose_engine(enum export_engine wanted, const struct engine **ret, struct failure *why)
{
	struct failure reason = { 0 };

	*ret = wanted == EXPORT_ENGINE_THREADS ? &threads_engine : &uring_engine;
	if (wanted != EXPORT_ENGINE_AUTO)
		return try_engine(*ret, why);
	if (try_engine(*ret, &reason) == 0)
		return 0;
	log_event(EVENT_IO_URING_UNAVAILABLE, NULL, "%s; a pool of threads does its work "
	          "(Engine=threads chooses that without this message)", reason.text);
	*ret = &threads_engine;
	return 0;
}

static int init_loops(struct export *export, struct failure *why)
{
	const struct export_settings *settings = export->settings;
	unsigned n = settings->threads;
	/* A client goes to the emptiest loop, so none has more than its part, rounded up. */
	unsigned n_clients = (settings->max_connections + n - 1) / n;
	const struct engine *engine;
	int r = choose_engine(settings->engine, &engine, why);

	if (r < 0)
		return r;
	export->loops = calloc(n, sizeof *export->loops);
	if (!export->loops)
		return fail(why, ENOMEM, "cannot make %u request loops", n);
	for (; r == 0 && export->n_loops < n; export->n_loops++)
		r = loop_init(&export->loops[export->n_loops], export, engine,
		              export_settings_memory(settings) / n, n_clients, why);
	return r;
}

int export_init(struct export *export, const struct export_settings *settings,
                const struct device *device, struct failure *why)
{
	int r;

	*export = (struct export) { .settings = settings, .device = *device,
	                            .tracked_size = device->size };
	order_init(&export->order, settings->threads > 1);
	flush_line_init(&export->flush_line);
	pool_init(&export->pool, JOB_THREADS);
	pool_init(&export->discards, DISCARD_THREADS);

	r = mailbox_init(&export->mail, why);
	if (r == 0)
		r = latch_open(&export->latch, settings->label, export->device.identity, why);
	return r == 0 ? init_loops(export, why) : r;
}

void export_deinit(struct export *export)
{
	for (unsigned i = 0; i < export->n_loops; i++)
		loop_stop(&export->loops[i]);
	mailbox_empty(&export->mail);
	pool_deinit(&export->pool);
	pool_deinit(&export->discards);
	for (unsigned i = 0; i < export->n_loops; i++)
		loop_deinit(&export->loops[i]);
	tracker_close(export->tracker);
	free(export->loops);
	latch_close(&export->latch);
	device_close(&export->device);
	mailbox_deinit(&export->mail);
}

int export_start(struct export *export, struct failure *why)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < export->n_loops; i++)
		r = loop_start(&export->loops[i], why);
	return r;
}

struct loop *export_choose_loop(struct export *export)
{
	struct loop *least = export->loops;

	for (unsigned i = 1; i < export->n_loops; i++)
		if (export->loops[i].n_admitted < least->n_admitted)
			least = &export->loops[i];
	return least;
}

void export_drain(struct export *export, enum reason reason)
{
	export->last_flush_error = 0;
	export->n_draining = export->n_loops;
	export->quiet = false;
	export->round++;
	for (unsigned i = 0; i < export->n_loops; i++)
		loop_drain(&export->loops[i], export->round, reason);
}

void export_resume(struct export *export)
{
	export->quiet = false;
	export->round++;
	for (unsigned i = 0; i < export->n_loops; i++)
		loop_resume(&export->loops[i], export->round);
}

/* In a thread of the pool: the main thread goes on answering the service manager. */
static void run_last_flush(struct job *job)
{
	struct export *export = container_of(job, struct export, last_flush);

	export->flush_error = -flush_last(export);
}

static void on_last_flush(struct job *job);

static void begin_last_flush(struct export *export)
{
	export->flushes = true;
	export->flush_round = export->round;
	export->last_flush = (struct job) { .run = run_last_flush, .done = on_last_flush };
	pool_submit(&export->pool, &export->last_flush, &export->mail);
}

/* It may be one of a drain that was broken off since, and another one may wait for its own. */
static void on_last_flush(struct job *job)
{
	struct export *export = container_of(job, struct export, last_flush);
	bool counts = export->flush_round == export->round;
	int error = export->flush_error;

	export->flushes = false;
	if (error && device_vanished(&export->device, error))
		export->on_device_failed(export, error);
	else if (error)
		flush_failed(export, error, "flushing the drained device failed");
	if (counts) {
		export->last_flush_error = error;
		export->on_drained(export);
	} else if (export->quiet) {
		begin_last_flush(export);
	}
}

void export_loop_drained(struct export *export, unsigned round)
{
	if (round != export->round || --export->n_draining > 0)
		return;
	export->quiet = true;
	if (export->device_gone)
		export->on_drained(export);
	else if (!export->flushes)
		begin_last_flush(export);
}
