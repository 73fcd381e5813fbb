/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"
#include "export/contexts.h"
#include "export/linger.h"
#include "export/look.h"
#include "export/read.h"
#include "export/send.h"

struct conn *conn_new(struct loop *loop)
{
	struct conn *conn = calloc(1, sizeof *conn);

	if (!conn)
		return NULL;
	conn->export = loop->export;
	conn->loop = loop;
	conn->fd = -1;
	loop->n_admitted++;
	conn->out_end = &conn->out;
	conn->is_silent = true;
	conn->starved_end = &conn->starved;
	return conn;
}

/* A copy that is the caller's, printable. */
static char *shown(struct span text)
{
	size_t size = 3 * text.len + 4;         /* each byte may become another character */
	char *ret = malloc(size);

	if (ret)
		printable(text, size - 4, ret, size);
	return ret;
}

int conn_set_identity(struct conn *conn, struct span identity, struct span tls)
{
	conn->identity = shown(identity);
	conn->tls = shown(tls);
	return conn->identity && conn->tls ? 0 : -ENOMEM;
}

void conn_free(struct conn *conn)
{
	conn->loop->n_admitted--;
	close_fd(&conn->fd);
	for (unsigned i = 0; i < conn->n_contexts; i++)
		context_unuse(conn->export, conn->contexts[i]);
	free(conn->contexts);
	free(conn->identity);
	free(conn->tls);
	free(conn->filter);
	free(conn);
}

void conn_unsettle(struct conn *conn)
{
	if (conn->is_unsettled)
		return;
	conn->is_unsettled = true;
	conn->next_unsettled = conn->loop->unsettled;
	conn->loop->unsettled = conn;
}

static void on_arrival(struct letter *letter)
{
	struct conn *conn = container_of(letter, struct conn, letter);
	struct loop *loop = conn->loop;

	conn->next = loop->conns;
	if (conn->next)
		conn->next->prev = conn;
	loop->conns = conn;
	loop->n_conns++;
	memory_admit(&loop->memory, &conn->holder);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->given);
	conn->taken = conn->given;
	if (loop->draining)
		conn_end(conn, loop->drain_reason);
	else if (client_is_outgrown(conn))      /* since it was granted */
		conn_retire(conn, REASON_RESIZED);
	conn_unsettle(conn);
}

void conn_arrive(struct conn *conn)
{
	conn->letter.open = on_arrival;
	mailbox_post(&conn->loop->ring.mail, &conn->letter);
}

static void on_departure(struct letter *letter)
{
	struct conn *conn = container_of(letter, struct conn, letter);

	conn->export->on_gone(conn->export, conn);
}

static void unstarve(struct conn *conn)
{
	struct loop *loop = conn->loop;
	struct conn **at;

	if (!conn->is_starved)
		return;
	for (at = &loop->starved; *at != conn; at = &(*at)->next_starved)
		;
	*at = conn->next_starved;
	if (!*at)
		loop->starved_end = at;
	conn->is_starved = false;
}

/* Nothing of it is in flight: it leaves the ring for good. */
static void depart(struct conn *conn)
{
	struct loop *loop = conn->loop;

	assert(!conn->is_unsettled && !conn->is_starved && conn->n_slots == 0);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		loop->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	loop->n_conns--;
	memory_dismiss(&loop->memory, &conn->holder);
	conn->letter.open = on_departure;
	ring_forget(&loop->ring, conn->fd);
	mailbox_post(&conn->export->mail, &conn->letter);
}

bool conn_may_yet_stay(const struct conn *conn)
{
	return (conn->loop->draining && conn->reason == conn->loop->drain_reason) ||
	       (conn->retired && conn->reason == conn->retired);
}

void conn_end(struct conn *conn, enum reason reason)
{
	if (conn->dead || (conn->ending && !conn_may_yet_stay(conn)))
		return;
	conn->ending = true;
	conn->reason = reason;
	conn_unsettle(conn);
}

void conn_stay(struct conn *conn, enum reason reason)
{
	if (!conn->ending || conn->lingers || conn->dead || conn->reason != reason)
		return;
	conn->ending = false;
	conn->reason = REASON_NONE;
	conn_unsettle(conn);
}

void conn_retire(struct conn *conn, enum reason reason)
{
	if (conn->retired || conn->dead)
		return;
	conn->is_cut = conn->size > conn->export->device.size;
	conn->retired = reason;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->retired_at);
	conn_unsettle(conn);
	loop_watch(conn->loop);
}

const char *conn_leaves_since(const struct conn *conn)
{
	if (conn->loop->draining)
		return conn->loop->drain_reason == REASON_DEVICE ? "the device is gone" :
		       "the export is being stopped";
	return conn->retired ? "the export has changed its size: connect again" : NULL;
}

void conn_kill(struct conn *conn, enum reason reason)
{
	if (conn->dead)
		return;
	conn->dead = true;
	if (!conn->ending)
		conn->reason = reason;
	(void) shutdown(conn->fd, SHUT_RDWR);
	conn_unsettle(conn);
}

struct kick {
	struct letter letter;
	struct loop *loop;
	uint64_t id;
	enum reason reason;
};

static void on_kick(struct letter *letter)
{
	struct kick *kick = container_of(letter, struct kick, letter);
	struct conn *conn = kick->loop->conns;

	while (conn && conn->id != kick->id)
		conn = conn->next;
	if (conn)
		conn_kill(conn, kick->reason);
	free(kick);
}

int conn_kick(struct loop *loop, uint64_t id, enum reason reason)
{
	struct kick *kick = malloc(sizeof *kick);

	if (!kick)
		return -ENOMEM;
	*kick = (struct kick) { { .open = on_kick }, loop, id, reason };
	mailbox_post(&loop->ring.mail, &kick->letter);
	return 0;
}

bool conn_has_slot(struct conn *conn)
{
	if (conn->n_slots == CONN_MAX_SLOTS)
		return false;
	if (slot_at_hand(&conn->loop->slots))
		return true;
	loop_watch(conn->loop);
	return false;
}

struct slot *conn_take_slot(struct conn *conn)
{
	struct loop *loop = conn->loop;
	struct slot *slot = slot_new(&loop->slots, conn);

	assert(slot && conn->n_slots < CONN_MAX_SLOTS);
	conn->stats.n_requests++;
	if (conn->n_slots++ == 0) {
		memory_set_busy(&loop->memory, ++loop->n_busy);
		loop_watch(loop);
	}
	return slot;
}

void conn_give_slot(struct slot *slot)
{
	struct conn *conn = slot->conn;
	struct loop *loop = conn->loop;

	if (slot->has_whole) {
		conn->holder.n_whole--;
		loop->memory.released = true;   /* the next one may begin */
	}
	slot_free(&loop->slots, slot);
	if (--conn->n_slots == 0)
		memory_set_busy(&loop->memory, --loop->n_busy);
	conn_unsettle(conn);
}

void slot_fail(struct slot *slot, int code, const char *sentence)
{
	if (slot->error)
		return;
	slot->error = nbd_error_of(code);
	slot->sentence = sentence;
}

void slot_answer(struct slot *slot, enum nbd_error error, const char *sentence)
{
	struct conn *conn = slot->conn;
	struct out *out = &slot->final;
	struct span text;

	if (error)
		conn->stats.n_errors++;
	out->header_len = (uint8_t) put_final(out->header, conn->mode, &slot->req, error, sentence,
	                                      &text);
	out->body = text.at;
	out->body_len = (uint32_t) text.len;
	out->last = slot;
	conn_queue(conn, out);
}

/* Once in the list of those who wait for memory, behind all others. */
static void join_starved(struct conn *conn)
{
	struct loop *loop = conn->loop;

	if (conn->is_starved)
		return;
	conn->is_starved = true;
	conn->next_starved = NULL;
	*loop->starved_end = conn;
	loop->starved_end = &conn->next_starved;
	loop_watch(loop);
}

void conn_await_reload(struct conn *conn, struct piece *piece)
{
	conn->reload = piece;
	join_starved(conn);
}

void conn_starve(struct slot *slot, bool (*resume)(struct slot *slot))
{
	struct conn *conn = slot->conn;

	if (!slot->starved) {
		slot->starved = true;
		slot->next = NULL;
		*conn->starved_end = slot;
		conn->starved_end = &slot->next;
	}
	slot->resume = resume;
	join_starved(conn);
}

static void pop_starved(struct conn *conn)
{
	struct slot *slot = conn->starved;

	conn->starved = slot->next;
	if (!conn->starved)
		conn->starved_end = &conn->starved;
	slot->starved = false;
}

/* What the connection wants first.  One whose replies were evicted gets nothing new. */
static bool serve_one(struct conn *conn)
{
	struct slot *slot = conn->starved;

	if (conn->reload) {
		if (!read_again_now(conn->reload))
			return false;
		conn->reload = NULL;
		return true;
	}
	if (!slot || conn->n_evicted || !slot->resume(slot))
		return false;
	pop_starved(conn);
	return true;
}

/*
 * Gives memory that came back to who waits for it, connection by connection, a request
 * each.  One that needs much at once (a whole reply) and cannot have it yet closes the
 * shared part to those behind it, so that it is not starved by what is small; they have floors.
 */
static void serve_starved(struct loop *loop)
{
	struct conn *conn = loop->starved, *next;

	loop->memory.closed = false;
	for (; conn; conn = next) {
		next = conn->next_starved;
		if (!serve_one(conn))
			continue;
		unstarve(conn);
		if (conn->starved)
			join_starved(conn);
		conn_unsettle(conn);
	}
}

/* Requests that wait for memory will not get any; those with pieces under way end with them. */
static void drop_starved(struct conn *conn)
{
	if (conn->is_starved)
		conn->loop->memory.released = true;   /* those behind it look again */
	if (conn->reload)
		conn->reloading = false;
	conn->reload = NULL;
	while (conn->starved) {
		struct slot *slot = conn->starved;

		pop_starved(conn);
		if (slot->n_io == 0 && !slot->receiving)
			slot_answer(slot, NBD_EIO, NULL);
	}
	unstarve(conn);
}

static void settle_dead(struct conn *conn)
{
	bool quiet;

	drop_starved(conn);
	quiet = conn_stop_sending(conn);
	if (!conn_stop_receiving(conn) || !quiet)
		return;
	if (conn->n_slots == 0 && !conn->is_unsettled)
		depart(conn);
}

static bool all_said(const struct conn *conn)
{
	return conn->ending && conn->n_slots == 0 && !conn->out && !conn->send_op.in_flight &&
	       (!conn->pending || conn_leaves_unanswered(conn));
}

static void settle(struct conn *conn)
{
	if (!conn->dead) {
		conn_receive(conn);
		conn_send(conn);
		if (conn_shall_leave(conn) && !conn->ending)
			conn_end(conn, conn->loop->draining ? conn->loop->drain_reason : conn->retired);
		if (all_said(conn) && !linger(conn))
			conn_kill(conn, conn->reason);
	}
	if (conn->dead)
		settle_dead(conn);
}

void conns_settle(struct loop *loop)
{
	while (loop->unsettled || (loop->memory.released && loop->starved)) {
		struct conn *conn = loop->unsettled;

		if (conn) {
			loop->unsettled = conn->next_unsettled;
			conn->is_unsettled = false;
			settle(conn);
		} else {
			loop->memory.released = false;
			serve_starved(loop);
		}
	}
	loop->memory.released = false;
	if (!loop->starved)
		loop->memory.closed = false;
}
