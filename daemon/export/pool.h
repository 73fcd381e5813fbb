/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A few threads for calls that may block and that the ring has no operation for:
 * BLKDISCARD, lseek(SEEK_HOLE) over a fragmented file.  Where there is no io_uring, another
 * pool does all of the device's work.
 *
 * Threads start when there is work, and end when the pool is closed.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "export/mailbox.h"

#define POOL_THREADS_MAX 16u

struct job {
	void (*run)(struct job *job);           /* in a pool thread; may block */
	void (*done)(struct job *job);          /* in the owner's thread, afterwards */
	struct job *next;
	struct letter letter;
	struct mailbox *reply_to;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct job *first, **end;
	unsigned most, n_threads, n_idle, n_queued;
	bool closing;
	pthread_t threads[POOL_THREADS_MAX];
};

/* With at most `most` threads, up to POOL_THREADS_MAX. */
void pool_init(struct pool *pool, unsigned most);

/* Waits for what runs, drops nothing: call when no job is left. */
void pool_deinit(struct pool *pool);

/*
 * Runs job->run in a thread of the pool, then job->done by way of `reply_to`.  The job
 * belongs to the pool in between.  When no thread can be had at all it runs right here.
 */
void pool_submit(struct pool *pool, struct job *job, struct mailbox *reply_to);
