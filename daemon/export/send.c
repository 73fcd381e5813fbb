/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/send.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "export/conn.h"
#include "export/read.h"
#include "wire/names.h"

#define SEND_IOV_MAX 512u

/* The reply, or its part, is with the client (or never will be): gives up what it held. */
static void release(struct conn *conn, struct out *out)
{
	struct loop *loop = conn->loop;
	struct slot *last = out->last;
	struct piece *piece = out->piece;

	if (piece) {
		conn->n_evicted -= piece->evicted;
		memory_give(&loop->memory, &conn->holder, &piece->block);
		piece_free(&loop->slots, piece);
	}
	if (last)
		conn_give_slot(last);
}

/* A reply's header by the specification's names, and the error in it. */
static void trace_reply(const struct conn *conn, const struct out *out)
{
	const struct subject about = { conn->export->settings->label, conn->peer, NULL };
	struct bytes in = bytes_over(out->header, out->header_len);
	uint32_t magic = take_u32(&in), error = NBD_SUCCESS;
	uint16_t flags = 0, type = 0;
	uint64_t cookie;

	if (magic == NBD_SIMPLE_REPLY_MAGIC) {
		error = take_u32(&in);
		cookie = take_u64(&in);
	} else {
		flags = take_u16(&in);
		type = take_u16(&in);
		cookie = take_u64(&in);
		(void) take_span(&in, magic == NBD_EXTENDED_REPLY_MAGIC ? 16 : 4);
		if (type & NBD_REPLY_ERROR_BIT)
			error = take_u32(&in);
	}
	log_about(LOG_DEBUG, &about, "reply: %s %s%s cookie 0x%" PRIx64,
	          magic == NBD_SIMPLE_REPLY_MAGIC ? "simple" : nbd_chunk_name(type),
	          nbd_error_name(error), flags & NBD_REPLY_FLAG_DONE ? " NBD_REPLY_FLAG_DONE" : "",
	          cookie);
}

void conn_queue(struct conn *conn, struct out *out)
{
	if (out->header_len && log_level() >= LOG_DEBUG)
		trace_reply(conn, out);
	out->next = NULL;
	*conn->out_end = out;
	conn->out_end = &out->next;
	conn_unsettle(conn);
}

static uint32_t length_of(const struct out *out)
{
	return out->header_len + out->body_len;
}

static void pop(struct conn *conn)
{
	struct out *out = conn->out;

	conn->out = out->next;
	if (!conn->out) {
		conn->out_end = &conn->out;
		conn->is_silent = true;
	}
	release(conn, out);
}

static void count_sent(struct conn *conn, size_t n)
{
	while (n) {
		struct out *out = conn->out;
		uint32_t left = length_of(out) - out->sent;

		if (n < left) {
			out->sent += (uint32_t) n;
			return;
		}
		n -= left;
		pop(conn);
	}
}

/* Gives up buffers of READ data that the client has not taken; see reload(). */
static void give_up_buffers(struct conn *conn)
{
	for (struct out *out = conn->out; out; out = out->next) {
		struct piece *piece = out->piece;

		if (!piece || !piece->block.at || piece->slot->req.type != NBD_CMD_READ)
			continue;
		memory_give(&conn->loop->memory, &conn->holder, &piece->block);
		piece->evicted = true;
		conn->n_evicted++;
		out->body = NULL;
	}
}

/* The operation that stood in the way has ended. */
static void finish_eviction(struct conn *conn)
{
	if (conn->evicting && !conn->dead)
		give_up_buffers(conn);
	conn->evicting = false;
}

static void on_sent(struct op *op, int res, int buffer)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	(void) buffer;
	conn_unsettle(conn);
	if (res >= 0) {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->taken);
		count_sent(conn, (size_t) res);
	} else if (res != -EINTR && res != -EAGAIN && res != -ECANCELED && res != -ENOMEM) {
		conn_kill(conn, REASON_PEER_GONE);
	}
	finish_eviction(conn);
}

/* The parts of `out` that were not sent yet; returns how many. */
static unsigned add_parts(const struct out *out, struct iovec *iov)
{
	uint32_t body_sent = out->sent > out->header_len ? out->sent - out->header_len : 0;
	unsigned n = 0;

	if (out->sent < out->header_len)
		iov[n++] = (struct iovec) {
			.iov_base = (void *) (out->header + out->sent),
			.iov_len = out->header_len - out->sent,
		};
	if (out->body_len > body_sent)
		iov[n++] = (struct iovec) {
			.iov_base = (void *) (out->body + body_sent),
			.iov_len = out->body_len - body_sent,
		};
	return n;
}

static bool is_evicted(const struct out *out)
{
	return out->piece && out->piece->evicted;
}

static unsigned count_parts(const struct conn *conn)
{
	unsigned n = 0;

	for (const struct out *out = conn->out; out && !is_evicted(out); out = out->next) {
		if (n + 2 > SEND_IOV_MAX)
			break;
		n += 2;
	}
	return n;
}

/* An evicted client reads again: one poll tells, then its replies are read once more. */
static void on_writable(struct op *op, int res, int buffer)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	(void) buffer;
	conn_unsettle(conn);
	finish_eviction(conn);
	if (res < 0 || conn->dead)
		return;
	conn->reloading = true;
	read_again(conn->out->piece);
}

static void await_reader(struct conn *conn)
{
	ring_await_writable(&conn->loop->ring, &conn->send_op, on_writable, conn->fd);
}

void conn_send(struct conn *conn)
{
	struct ring *ring = &conn->loop->ring;
	struct msghdr *msg;
	unsigned n;

	if (!conn->out || conn->send_op.in_flight || conn->reloading)
		return;
	n = count_parts(conn);
	if (conn->is_silent) {          /* nothing was due until now: its time begins */
		conn->is_silent = false;
		clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->taken);
	}
	if (n == 0) {
		await_reader(conn);
		return;
	}
	msg = ring_message(ring, n);
	for (struct out *out = conn->out; out && !is_evicted(out); out = out->next) {
		if (msg->msg_iovlen + 2 > n)
			break;
		msg->msg_iovlen += add_parts(out, msg->msg_iov + msg->msg_iovlen);
	}
	ring_send(ring, &conn->send_op, on_sent, conn->fd, msg);
}

void conn_evict(struct conn *conn)
{
	if (!conn->send_op.in_flight || conn->evicting || conn->holder.held == 0)
		return;
	conn->evicting = true;
	ring_cancel(&conn->loop->ring, &conn->send_op);
}

bool conn_stop_sending(struct conn *conn)
{
	if (conn->send_op.in_flight) {
		ring_cancel(&conn->loop->ring, &conn->send_op);
		return false;
	}
	if (conn->reloading)
		return false;
	while (conn->out)
		pop(conn);
	return true;
}
