/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/child.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "ctl/programs.h"

#define ACCURACY (USEC_PER_SEC / 1000)
#define START_DEADLINE (30 * USEC_PER_SEC)
#define FIRST_DELAY (USEC_PER_SEC / 10)
#define LONGEST_DELAY (10 * USEC_PER_SEC)
#define GOOD_RUN (10 * USEC_PER_SEC)          /* running this long forgets earlier failures */

static uint64_t now_of(const struct child *c)
{
	uint64_t now = 0;

	(void) sd_event_now(c->event, CLOCK_MONOTONIC, &now);
	return now;
}

static void stop_waiting(struct child *c)
{
	c->timer = sd_event_source_disable_unref(c->timer);
	c->demand_source = sd_event_source_disable_unref(c->demand_source);
}

static int on_deadline(sd_event_source *source, uint64_t when, void *userdata)
{
	struct child *c = userdata;

	(void) source;
	(void) when;
	log_event(EVENT_CHILD_LATE, NULL, "%s was not ready within %u seconds and is killed", c->title,
	          (unsigned) (START_DEADLINE / USEC_PER_SEC));
	stop_waiting(c);
	(void) kill(c->pid, SIGKILL);
	return 0;
}

/* The delay before the next start: none after a good run, then doubling. */
static uint64_t next_delay(struct child *c, bool was_ready)
{
	if (was_ready && now_of(c) - c->ready_at >= GOOD_RUN)
		return 0;
	if (c->delay == 0)
		return FIRST_DELAY;
	return c->delay * 2 < LONGEST_DELAY ? c->delay * 2 : LONGEST_DELAY;
}

static int on_exit_of_process(sd_event_source *source, const siginfo_t *how, void *userdata)
{
	struct child *c = userdata;
	bool was_ready = c->state == CHILD_READY;

	(void) source;
	stop_waiting(c);
	c->exit_source = sd_event_source_disable_unref(c->exit_source);
	c->pid = 0;
	c->state = CHILD_DOWN;
	c->delay = next_delay(c, was_ready);
	c->ended(c, was_ready, how);
	return 0;
}

static int set_timer(struct child *c, uint64_t delay, sd_event_time_handler_t handler)
{
	c->timer = sd_event_source_disable_unref(c->timer);
	return sd_event_add_time_relative(c->event, &c->timer, CLOCK_MONOTONIC, delay,
	                                  ACCURACY, handler, c);
}

int child_start(struct child *c, sd_event *event, struct failure *why)
{
	int r;

	c->event = event;
	stop_waiting(c);
	r = spawn(&c->plan, &c->pid, why);
	if (r < 0)
		return r;
	c->state = CHILD_STARTING;
	r = sd_event_add_child(event, &c->exit_source, c->pid, WEXITED, on_exit_of_process, c);
	if (r >= 0)
		r = set_timer(c, START_DEADLINE, on_deadline);
	if (r < 0)
		return fail(why, -r, "cannot watch over %s", c->title);
	log_debug("%s has started as process %ld", c->title, (long) c->pid);
	return 0;
}

void child_is_ready(struct child *c)
{
	if (c->state != CHILD_STARTING)
		return;
	stop_waiting(c);
	c->state = CHILD_READY;
	c->ready_at = now_of(c);
	log_debug("%s is ready", c->title);
	c->ready(c);
}

/* A start that nobody waits for: its failure is told here, and it is tried again. */
static void start_again(struct child *c)
{
	struct failure why = { 0 };

	if (child_start(c, c->event, &why) == 0)
		return;
	log_error("%s", why.text);
	if (child_runs(c)) {            /* it cannot be watched over: away with it */
		(void) kill(c->pid, SIGKILL);
		(void) waitpid(c->pid, NULL, 0);
		c->pid = 0;
		c->exit_source = sd_event_source_disable_unref(c->exit_source);
	}
	c->delay = next_delay(c, false);
	(void) child_again(c);
}

static int on_demand(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct child *c = userdata;

	(void) source;
	(void) fd;
	(void) events;
	start_again(c);
	return 0;
}

static int on_delay_over(sd_event_source *source, uint64_t when, void *userdata)
{
	struct child *c = userdata;
	int r;

	(void) source;
	(void) when;
	stop_waiting(c);
	if (c->demand < 0) {
		start_again(c);
		return 0;
	}
	r = sd_event_add_io(c->event, &c->demand_source, c->demand, EPOLLIN, on_demand, c);
	if (r < 0) {
		log_warning("cannot wait for clients of %s, starting it now: %s", c->title,
		            strerror(-r));
		start_again(c);
		return 0;
	}
	c->state = CHILD_ON_DEMAND;
	log_debug("%s waits for a client", c->title);
	return 0;
}

uint64_t child_again(struct child *c)
{
	int r = set_timer(c, c->delay, on_delay_over);

	c->state = r < 0 ? CHILD_DOWN : CHILD_BACKING_OFF;
	if (r < 0)
		log_error("cannot start %s again: %s", c->title, strerror(-r));
	return c->delay;
}

void child_signal(struct child *c, int signal_number)
{
	stop_waiting(c);
	if (child_runs(c))
		(void) kill(c->pid, signal_number);
	else
		c->state = CHILD_DOWN;
}

void child_describe_end(const siginfo_t *how, char *ret, size_t size)
{
	const char *name;

	if (how->si_code == CLD_EXITED) {
		(void) snprintf(ret, size, "ended with exit code %d", how->si_status);
		return;
	}
	name = sigabbrev_np(how->si_status);
	if (name)
		(void) snprintf(ret, size, "was killed by SIG%s", name);
	else
		(void) snprintf(ret, size, "was killed by signal %d", how->si_status);
}

int child_set_argv(struct child *c, const char *program_name, const char *const *words,
                   size_t n, struct failure *why)
{
	size_t at = 1;

	for (size_t i = 0; i < n; i++) {
		if (!words[i])
			continue;
		assert(at + 1 < ARRAY_LEN(c->argv));
		c->argv[at] = strdup(words[i]);
		if (!c->argv[at++])
			return fail(why, ENOMEM, "cannot prepare %s", program_name);
	}
	c->plan.argv = c->argv;
	if (program_find(program_name, &c->argv[0], why) < 0)
		return -why->code;
	c->plan.program = c->argv[0];
	return 0;
}

void child_clear(struct child *c)
{
	stop_waiting(c);
	c->exit_source = sd_event_source_disable_unref(c->exit_source);
	free(c->title);
	for (size_t i = 0; i < ARRAY_LEN(c->argv); i++)
		free(c->argv[i]);
	*c = (struct child) { .demand = -1 };
}
