/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The look around, once or a few times a second while something is going on: who does not get
 * on while others wait for memory, who holds up a drain or its own end, and what memory is idle.
 */
#include <time.h>

#include "base/log.h"
#include "export/conn.h"
#include "export/linger.h"
#include "export/send.h"

#define TICK_MS 1000
#define TICK_MS_UNDER_PRESSURE 100

static int64_t milliseconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (now.tv_sec - then->tv_sec) * 1000 + (now.tv_nsec - then->tv_nsec) / 1000000;
}

/* Whether it is the client's turn, replies to take or payload to go on with; or nobody's, as there
 * is no memory to begin what it asked for. */
static bool waits_for_client(const struct conn *conn)
{
	return conn->send_op.in_flight || (conn->recv_op.in_flight && conn->writing) ||
	       (conn->pending && conn->n_slots == 0);
}

static void close_stalled(struct conn *conn, enum reason reason, const char *sentence)
{
	log_about(LOG_NOTICE, &(struct subject) { conn->export->settings->label, conn->peer,
	          reason_word(reason), EVENT_CLIENT_STALLED, conn->id }, "%s: connection closed", sentence);
	conn_kill(conn, reason);
}

/* All is said, and the kernel has it: how long may the client take to take it? */
static void look_at_lingering(struct conn *conn)
{
	const struct loop *loop = conn->loop;
	const struct timespec *began = loop->draining ? &loop->drain_began : &conn->lingers_since;
	bool advanced = linger_advanced(conn), owes = conn->undelivered > LINGER_LAST;
	int64_t patience = owes ? CONN_DRAIN_SECONDS : CONN_LINGER_SECONDS;

	if (advanced)
		clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->taken);
	if (milliseconds_since(&conn->taken) <= patience * 1000 &&
	    milliseconds_since(began) <= CONN_DRAIN_SECONDS_ALL * 1000)
		return;
	if (owes)
		close_stalled(conn, conn->reason, "it does not take its last replies");
	else
		conn_kill(conn, conn->reason);
}

/* Memory that there was none of for a receive, or a request, may be there again. */
static void try_again(struct conn *conn)
{
	if (!conn->receive_failed && !conn->receive_blocked)
		return;
	conn->receive_failed = false;
	conn_unsettle(conn);
}

/* Whether somebody waits for memory that others hold, not for its own client to take replies. */
static bool is_memory_short(const struct loop *loop)
{
	for (const struct conn *conn = loop->starved; conn; conn = conn->next_starved)
		if (!conn->holder.over_share && (conn->reload || !conn->n_evicted))
			return true;
	return false;
}

static void look_at(struct conn *conn, bool short_of_memory)
{
	struct loop *loop = conn->loop;
	int64_t idle = milliseconds_since(conn->send_op.in_flight ? &conn->taken : &conn->given);
	bool holds = conn->holder.held || conn->holder.floor_taken;

	if (conn->dead || !(conn->lingers || waits_for_client(conn)))
		return;
	if (conn->lingers)
		look_at_lingering(conn);
	else if (conn_shall_leave(conn) && (idle > CONN_DRAIN_SECONDS * 1000 ||
	    milliseconds_since(loop->draining ? &loop->drain_began : &conn->retired_at) >
	    CONN_DRAIN_SECONDS_ALL * 1000))
		close_stalled(conn, conn->reason, "it shall leave, and does not get on");
	else if (short_of_memory && holds && idle > CONN_STALL_SECONDS * 1000)
		close_stalled(conn, REASON_STALLED, "no progress for 30 s while others wait for memory");
	else if (short_of_memory && idle > CONN_EVICT_MS)
		conn_evict(conn);
}

/* True while there is something to look at again. */
static bool look_around(struct loop *loop)
{
	struct conn *next;
	bool short_of_memory = is_memory_short(loop), lingers = false, warm;

	for (struct conn *conn = loop->conns; conn; conn = next) {
		next = conn->next;
		look_at(conn, short_of_memory);
		try_again(conn);
		lingers = lingers || conn->lingers;
	}
	if (loop->starved)
		return true;
	warm = memory_cool(&loop->memory);
	if (!warm && loop->n_busy == 0)
		receive_cool(&loop->buffers);
	return warm || lingers || loop->n_busy > 0 || (loop->draining && loop->n_conns > 0);
}

static void on_tick(struct op *op, int res, int buffer)
{
	struct loop *loop = container_of(op, struct loop, tick_op);

	(void) res;
	(void) buffer;
	if (look_around(loop))
		loop_watch(loop);
}

void loop_watch(struct loop *loop)
{
	if (!loop->tick_op.in_flight)
		ring_sleep(&loop->ring, &loop->tick_op, on_tick,
		           loop->starved ? TICK_MS_UNDER_PRESSURE : TICK_MS);
}
