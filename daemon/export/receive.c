/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/receive.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/log.h"
#include "export/command.h"
#include "export/conn.h"
#include "export/write.h"
#include "wire/names.h"
#include "wire/request.h"

/* From here on it pays to receive into the device's buffer rather than copy. */
#define DIRECT_MIN 4096u

_Static_assert(EXPORT_RECEIVE_BUFFERS - 1 == UINT16_MAX, "a buffer's number has 16 bits");

int receive_grow(struct receive_buffers *buffers, unsigned n)
{
	uint16_t *numbers;
	uint8_t **places, *at;
	unsigned all;

	assert(n > 0 && n <= EXPORT_RECEIVE_BUFFERS - buffers->n);
	all = buffers->n + n;
	numbers = realloc(buffers->free, all * sizeof *numbers);
	if (!numbers)
		return -ENOMEM;
	buffers->free = numbers;
	places = realloc(buffers->at, all * sizeof *places);
	if (!places)
		return -ENOMEM;
	buffers->at = places;
	at = mappings_add(&buffers->mappings, (size_t) n * buffers->size);
	if (!at)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		buffers->at[buffers->n + i] = at + (size_t) i * buffers->size;
		buffers->free[buffers->n_free++] = (uint16_t) (all - 1 - i);
	}
	buffers->n = all;
	return 0;
}

int receive_init(struct receive_buffers *buffers, unsigned n_clients, uint32_t size,
                 struct failure *why)
{
	*buffers = (struct receive_buffers) { .size = size };
	if (receive_grow(buffers, n_clients + RECEIVE_GROUP) < 0)
		return fail(why, ENOMEM, "cannot make receive buffers for %u clients", n_clients);
	return 0;
}

void receive_deinit(struct receive_buffers *buffers)
{
	mappings_clear(&buffers->mappings);
	free(buffers->at);
	free(buffers->free);
	*buffers = (struct receive_buffers) { 0 };
}

static uint8_t *buffer_at(const struct receive_buffers *buffers, uint16_t id)
{
	return buffers->at[id];
}

void receive_cool(struct receive_buffers *buffers)
{
	for (unsigned i = 0; i < buffers->n_free; i++)
		(void) madvise(buffer_at(buffers, buffers->free[i]), buffers->size, MADV_DONTNEED);
}

/* One for each connection that may be waiting, as long as the group has room. */
static void fill_group(struct loop *loop)
{
	struct receive_buffers *buffers = &loop->buffers;
	unsigned want = loop->n_conns + 1 < RECEIVE_GROUP ? loop->n_conns + 1 : RECEIVE_GROUP;

	while (buffers->n_given < want && buffers->n_free) {
		uint16_t id = buffers->free[--buffers->n_free];

		ring_give_buffer(&loop->ring, buffer_at(buffers, id), buffers->size, id);
		buffers->n_given++;
	}
}

static void give_back(struct conn *conn)
{
	struct receive_buffers *buffers = &conn->loop->buffers;

	conn->pending = NULL;
	conn->pending_len = 0;
	buffers->free[buffers->n_free++] = conn->buffer_id;
	fill_group(conn->loop);
}

static void begin_discard(struct conn *conn, struct slot *slot, uint64_t len)
{
	conn->receiving = RECEIVING_DISCARD;
	conn->writing = slot;
	conn->payload_left = len;
}

void receive_discard(struct slot *slot)
{
	slot->conn->receiving = RECEIVING_DISCARD;
	slot->receiving = true;
}

static void begin_request(struct conn *conn, const struct request *req);

/* A header, perhaps in parts.  Blocked on a slot, it stays where it is. */
static void take_header(struct conn *conn)
{
	size_t size = request_size(conn->mode);
	struct request req;
	struct span s;
	size_t n;

	if (!conn_has_slot(conn)) {
		conn->receive_blocked = true;
		return;
	}
	if (conn->gathered_len == 0 && conn->pending_len >= size) {
		s = (struct span) { conn->pending, size };
		n = size;
	} else {
		n = size - conn->gathered_len;
		if (n > conn->pending_len)
			n = conn->pending_len;
		memcpy(conn->gathered + conn->gathered_len, conn->pending, n);
		conn->gathered_len += (uint8_t) n;
		s = (struct span) { conn->gathered, conn->gathered_len };
	}
	conn->pending += n;
	conn->pending_len -= (uint32_t) n;
	if (s.len < size)
		return;
	conn->gathered_len = 0;

	if (!decode_request(bytes_over(s.at, s.len), conn->mode, &req)) {
		log_about(LOG_NOTICE, &(struct subject) { conn->export->settings->label, conn->peer,
		          reason_word(REASON_PROTOCOL), EVENT_PROTOCOL_VIOLATION, conn->id },
		          "bad request magic: no more is read from it");
		conn_end(conn, REASON_PROTOCOL);
		return;
	}
	begin_request(conn, &req);
}

static void take_write(struct conn *conn)
{
	struct piece *piece = conn->filling;
	uint32_t n;

	if (!piece) {
		conn->receive_blocked = true;
		return;
	}
	n = piece->data_len - piece->moved;
	if (n > conn->pending_len)
		n = conn->pending_len;
	memcpy(piece->block.at + piece->data_at + piece->moved, conn->pending, n);
	conn->pending += n;
	conn->pending_len -= n;
	write_filled(piece, n);
}

static void take_discard(struct conn *conn)
{
	struct slot *slot = conn->writing;
	uint64_t n = conn->payload_left < conn->pending_len ? conn->payload_left : conn->pending_len;

	conn->pending += n;
	conn->pending_len -= (uint32_t) n;
	conn->payload_left -= n;
	if (conn->payload_left)
		return;
	conn->receiving = RECEIVING_HEADER;
	conn->writing = NULL;
	slot->receiving = false;
	if (slot->n_io == 0)
		slot_answer(slot, slot->error, slot->sentence);
}

static uint32_t filter_size(const struct conn *conn)
{
	return 8 + 4u * conn->n_contexts;
}

static void begin_command(struct slot *slot);

static void take_filter(struct conn *conn)
{
	struct slot *slot = conn->writing;
	size_t len = slot->req.length;          /* of the payload, until it is decoded */
	size_t have = len - conn->payload_left;
	size_t n = conn->payload_left < conn->pending_len ? conn->payload_left : conn->pending_len;
	struct status_filter filter;

	memcpy(conn->filter + have, conn->pending, n);
	conn->pending += n;
	conn->pending_len -= (uint32_t) n;
	conn->payload_left -= n;
	if (conn->payload_left)
		return;

	conn->receiving = RECEIVING_HEADER;
	conn->writing = NULL;
	if (!decode_status_filter(bytes_over(conn->filter, len), conn->contexts, conn->n_contexts,
	                          &filter)) {
		slot_answer(slot, NBD_EINVAL, "the selection of contexts is empty, has one twice, or "
		            "has one that was not negotiated");
		return;
	}
	slot->req.length = filter.length;
	slot->status_wanted = filter.wanted;
	begin_command(slot);
}

/* A device that has become read-only is so for those, too, who may write. */
static struct command_limits limits_of(const struct conn *conn)
{
	uint16_t flags = conn->flags;

	if (conn->export->device.read_only)
		flags |= NBD_FLAG_READ_ONLY;
	return (struct command_limits) {
		.size = conn->size, .flags = flags, .mode = conn->mode,
		.shutdown = conn_leaves_since(conn),
	};
}

/* The request and what it brought (but a WRITE's data) are here: check it and start it. */
static void begin_command(struct slot *slot)
{
	struct command_limits limits = limits_of(slot->conn);
	struct verdict v = command_check(slot->command, &slot->req, &limits);

	if (v.error)
		slot_answer(slot, v.error, v.sentence);
	else if (slot->req.length == 0 && slot->command->zero_length)
		slot_answer(slot, NBD_SUCCESS, NULL);
	else
		slot->command->start(slot);
}

static void begin_write(struct slot *slot, uint64_t payload)
{
	struct conn *conn = slot->conn;
	struct command_limits limits = limits_of(conn);
	struct verdict v = command_check(slot->command, &slot->req, &limits);

	conn->writing = slot;
	conn->payload_left = payload;
	slot->receiving = true;
	slot->error = v.error;
	slot->sentence = v.sentence;
	if (v.error)
		receive_discard(slot);
	else
		start_write_payload(slot);
}

/* BLOCK_STATUS in extended mode; what cannot be a selection is dropped and fails. */
static void begin_filter(struct slot *slot, uint64_t payload)
{
	struct conn *conn = slot->conn;

	if (payload > filter_size(conn)) {
		slot->error = NBD_EINVAL;
		slot->sentence = "the selection of contexts is longer than what was negotiated";
		begin_discard(conn, slot, payload);
		return;
	}
	if (!conn->filter)
		conn->filter = malloc(filter_size(conn));
	if (!conn->filter) {
		slot->error = NBD_ENOMEM;
		begin_discard(conn, slot, payload);
		return;
	}
	conn->receiving = RECEIVING_FILTER;
	conn->writing = slot;
	conn->payload_left = payload;
}

/* A payload where none belongs: dropped, and then the flag that announced it is the fault. */
static void begin_stray_payload(struct slot *slot, uint64_t payload)
{
	struct command_limits limits = limits_of(slot->conn);
	struct verdict v;

	slot->req.length = 0;
	v = command_check(slot->command, &slot->req, &limits);
	slot->error = v.error ? v.error : NBD_EINVAL;
	slot->sentence = v.sentence;
	begin_discard(slot->conn, slot, payload);
}

static void begin_request(struct conn *conn, const struct request *req)
{
	uint64_t payload = request_payload(req, conn->mode);
	struct slot *slot;

	if (log_level() >= LOG_DEBUG)
		log_about(LOG_DEBUG, &(struct subject) { conn->export->settings->label, conn->peer, NULL },
		          "%s offset %" PRIu64 " length %" PRIu64 " flags 0x%x cookie 0x%" PRIx64,
		          nbd_cmd_name(req->type), req->offset, req->length, req->flags, req->cookie);
	if (req->type == NBD_CMD_DISC) {
		conn_end(conn, REASON_DISCONNECT);
		return;
	}
	slot = conn_take_slot(conn);
	slot->req = *req;
	slot->command = command_find(req->type);

	if (payload > NBD_MAX_PAYLOAD) {
		slot_answer(slot, NBD_EINVAL, "longer than 32 MiB");
		conn_end(conn, REASON_PROTOCOL);
	} else if (payload == 0) {
		begin_command(slot);
	} else if (req->type == NBD_CMD_WRITE) {
		begin_write(slot, payload);
	} else if (req->type == NBD_CMD_BLOCK_STATUS) {
		begin_filter(slot, payload);
	} else {
		begin_stray_payload(slot, payload);
	}
}

static void (*const takers[])(struct conn *conn) = {
	[RECEIVING_HEADER] = take_header,
	[RECEIVING_WRITE] = take_write,
	[RECEIVING_FILTER] = take_filter,
	[RECEIVING_DISCARD] = take_discard,
};

/* Whether another header may be begun.  What has arrived when the client shall leave is still
 * answered (that it is shutting down). */
static bool may_begin(const struct conn *conn)
{
	return !conn->ending || (!conn->lingers && conn_may_yet_stay(conn));
}

static void take_pending(struct conn *conn)
{
	conn->receive_blocked = false;
	while (conn->pending_len && !conn->receive_blocked && !conn->dead) {
		if (conn->receiving == RECEIVING_HEADER && !conn->lingers && conn_leaves_unanswered(conn))
			return;         /* the bytes stay, as it may yet be let stay */
		if (conn->receiving == RECEIVING_HEADER && !may_begin(conn))
			conn->pending_len = 0;
		else
			takers[conn->receiving](conn);
	}
	if (conn->pending && conn->pending_len == 0)
		give_back(conn);
}

static void on_end_of_file(struct conn *conn)
{
	if (conn->receiving == RECEIVING_HEADER && conn->gathered_len == 0 && !conn->lingers)
		conn_end(conn, REASON_DISCONNECT);
	else
		conn_kill(conn, REASON_PEER_GONE);
}

static void on_received(struct op *op, int res, int buffer)
{
	struct conn *conn = container_of(op, struct conn, recv_op);
	struct loop *loop = conn->loop;

	conn_unsettle(conn);
	if (buffer != RING_NO_BUFFER) {
		conn->buffer_id = (uint16_t) buffer;
		conn->pending = buffer_at(&loop->buffers, conn->buffer_id);
		conn->pending_len = res > 0 ? (uint32_t) res : 0;
		loop->buffers.n_given--;
		if (conn->pending_len == 0)
			give_back(conn);
	}
	if (res > 0) {
		clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->given);
		conn->discarded += conn->lingers ? (uint32_t) res : 0;
		if (buffer == RING_NO_BUFFER)
			write_filled(conn->filling, (uint32_t) res);
		else if (!conn->dead)
			take_pending(conn);
	} else if (res == 0) {
		on_end_of_file(conn);
	} else if (res == -ENOMEM) {
		conn->receive_failed = true;
		loop_watch(loop);
	} else if (res != -ENOBUFS && res != -EINTR && res != -EAGAIN && res != -ECANCELED) {
		conn_kill(conn, REASON_PEER_GONE);
	}
}

void conn_receive(struct conn *conn)
{
	struct ring *ring = &conn->loop->ring;
	struct piece *piece = conn->filling;

	if (conn->recv_op.in_flight || conn->receive_failed || conn->dead)
		return;
	if (conn->pending)
		take_pending(conn);
	if (conn->pending || conn->dead || conn->recv_op.in_flight)
		return;
	if (conn->receiving == RECEIVING_HEADER && !conn->lingers &&
	    (conn->ending || conn->n_slots == CONN_MAX_SLOTS))
		return;
	if (conn->receiving == RECEIVING_WRITE && !piece)
		return;

	if (conn->receiving == RECEIVING_WRITE && piece->data_len - piece->moved >= DIRECT_MIN) {
		ring_receive(ring, &conn->recv_op, on_received, conn->fd,
		             piece->block.at + piece->data_at + piece->moved,
		             piece->data_len - piece->moved);
	} else {
		fill_group(conn->loop);
		ring_receive_any(ring, &conn->recv_op, on_received, conn->fd,
		                 conn->loop->buffers.size);
	}
}

bool conn_stop_receiving(struct conn *conn)
{
	struct slot *slot = conn->writing;

	if (conn->recv_op.in_flight) {
		ring_cancel(&conn->loop->ring, &conn->recv_op);
		return false;
	}
	if (conn->pending)
		give_back(conn);
	if (!slot)
		return true;

	conn->writing = NULL;
	slot->receiving = false;
	if (conn->filling)
		write_abandon(conn->filling);
	else if (slot->n_io == 0 && !slot->starved)
		slot_answer(slot, NBD_EIO, NULL);
	return true;
}
