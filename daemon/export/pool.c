/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/pool.h"

#include <assert.h>
#include <signal.h>

#include "base/attr.h"

#define STACK_SIZE (128u << 10)

void pool_init(struct pool *pool, unsigned most)
{
	assert(most && most <= POOL_THREADS_MAX);
	*pool = (struct pool) {
		.most = most,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.work = PTHREAD_COND_INITIALIZER,
	};
	pool->end = &pool->first;
}

static void on_letter(struct letter *letter)
{
	struct job *job = container_of(letter, struct job, letter);

	job->done(job);
}

static void run_job(struct job *job)
{
	job->run(job);
	job->letter.open = on_letter;
	mailbox_post(job->reply_to, &job->letter);
}

static struct job *next_job(struct pool *pool)
{
	struct job *job;

	pool->n_idle++;
	while (!pool->first && !pool->closing)
		pthread_cond_wait(&pool->work, &pool->lock);
	pool->n_idle--;

	job = pool->first;
	if (!job)
		return NULL;
	pool->first = job->next;
	if (!pool->first)
		pool->end = &pool->first;
	pool->n_queued--;
	return job;
}

static void *work(void *userdata)
{
	struct pool *pool = userdata;
	struct job *job;

	pthread_mutex_lock(&pool->lock);
	while ((job = next_job(pool))) {
		pthread_mutex_unlock(&pool->lock);
		run_job(job);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals stay with the main thread. */
static void add_thread(struct pool *pool)
{
	pthread_attr_t attr;
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	(void) pthread_attr_setstacksize(&attr, STACK_SIZE);
	if (pthread_create(&pool->threads[pool->n_threads], &attr, work, pool) == 0)
		pool->n_threads++;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pool_submit(struct pool *pool, struct job *job, struct mailbox *reply_to)
{
	bool alone;

	job->reply_to = reply_to;
	job->next = NULL;

	pthread_mutex_lock(&pool->lock);
	assert(!pool->closing);
	if (pool->n_idle <= pool->n_queued && pool->n_threads < pool->most)
		add_thread(pool);
	alone = pool->n_threads == 0;
	if (!alone) {
		*pool->end = job;
		pool->end = &job->next;
		pool->n_queued++;
		pthread_cond_signal(&pool->work);
	}
	pthread_mutex_unlock(&pool->lock);

	if (alone)
		run_job(job);
}

void pool_deinit(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pool->n_threads = 0;
}
