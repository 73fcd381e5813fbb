/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/inquiry.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <systemd/sd-event.h>

struct round {
	sd_event *event;
	size_t n_out;                   /* no answer yet */
};

static const char *word(const struct inquiry *q)
{
	return q->method ? q->method : "GetAll";
}

static bool is_out(const struct inquiry *q)
{
	return q->result == -EINPROGRESS;
}

static void end(struct inquiry *q, int result)
{
	q->result = result;
	if (--q->round->n_out == 0)
		(void) sd_event_exit(q->round->event, 0);
}

/* Also when the connection ends, as an error of sd-bus's own. */
static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const sd_bus_error *error = sd_bus_message_get_error(m);
	struct inquiry *q = userdata;

	(void) ret_error;
	if (error) {
		end(q, control_fail_call(&q->peer, word(q), error, -sd_bus_message_get_errno(m),
		                         &q->why));
	} else {
		q->reply = sd_bus_message_ref(m);
		end(q, 0);
	}
	return 0;
}

static int begin(struct inquiry *q)
{
	AUTO_MESSAGE *m = NULL;
	int r = control_connect_at_once(q->socket, &q->bus, &q->why);

	if (r < 0)
		return r;
	r = control_new_call(q->bus, &q->peer, q->method, &m);
	if (r >= 0)
		r = sd_bus_call_async(q->bus, NULL, m, on_answer, q, UINT64_MAX);
	if (r >= 0)                     /* else the end of the loop would wait for the peer */
		r = sd_bus_set_close_on_exit(q->bus, 0);
	if (r >= 0)
		r = sd_bus_attach_event(q->bus, q->round->event, SD_EVENT_PRIORITY_NORMAL);
	return r < 0 ? control_fail_call(&q->peer, word(q), NULL, r, &q->why) : 0;
}

/* Nothing is over before all have been asked. */
static void begin_all(struct round *round, struct inquiry *all, size_t n)
{
	round->n_out++;
	for (size_t i = 0; i < n; i++) {
		int r;

		if (all[i].result < 0)
			continue;
		all[i].result = -EINPROGRESS;
		all[i].round = round;
		round->n_out++;
		r = begin(&all[i]);
		if (r < 0)
			end(&all[i], r);
	}
	round->n_out--;
}

/* Whoever has not answered does not; and nobody is listened to any more. */
static void end_all(struct inquiry *all, size_t n, int r)
{
	for (size_t i = 0; i < n; i++) {
		if (is_out(&all[i]))
			all[i].result = control_fail_call(&all[i].peer, word(&all[i]), NULL, r,
			                                  &all[i].why);
		control_close(&all[i].bus);
		all[i].round = NULL;
	}
}

static int on_deadline(sd_event_source *source, uint64_t now, void *userdata)
{
	(void) now;
	(void) userdata;
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

/* Each takes a descriptor. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void) setrlimit(RLIMIT_NOFILE, &limit);
}

void inquire(struct inquiry *all, size_t n, uint64_t patience)
{
	struct round round = { 0 };
	int r = sd_event_new(&round.event);

	raise_limit();
	if (r >= 0)
		r = sd_event_add_time_relative(round.event, NULL, CLOCK_MONOTONIC, patience, 1,
		                               on_deadline, NULL);
	for (size_t i = 0; r < 0 && i < n; i++)
		if (all[i].result >= 0)
			all[i].result = fail(&all[i].why, -r, "cannot ask %s", all[i].peer.title);
	if (r >= 0) {
		begin_all(&round, all, n);
		if (round.n_out > 0)
			r = sd_event_loop(round.event);
		end_all(all, n, r < 0 ? r : -ETIMEDOUT);
	}
	sd_event_unref(round.event);
}

void inquiry_clear(struct inquiry *inquiry)
{
	inquiry->reply = sd_bus_message_unref(inquiry->reply);
}
