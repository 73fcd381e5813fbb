/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection of a run: which requests it makes, and how they leave in batches. */
#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "content.h"
#include "report.h"

void connection_open(struct connection *connection, struct load *load, unsigned index,
                     const struct address *address)
{
	uint32_t depth = (uint32_t) load->settings->depth;

	*connection = (struct connection) {.load = load, .index = index};
	peer_open(address, load->settings, false, &connection->peer);
	connection->slots = allocate(depth, sizeof *connection->slots);
	connection->free_slots = allocate(depth, sizeof *connection->free_slots);
	connection->headers = allocate(depth, LARGEST_HEADER);
	connection->iov = allocate(2 * (size_t) depth, sizeof *connection->iov);
	if (load->settings->verify && load->settings->operation != OPERATION_READ)
		connection->contents = allocate(depth, load->settings->block);
	connection->n_free = depth;
	for (uint32_t i = 0; i < depth; i++)
		connection->free_slots[i] = depth - 1 - i;
	connection->random = mix_bits(load->settings->seed + UINT64_C(0x9e3779b97f4a7c15) * index);
}

void connection_close(struct connection *connection)
{
	peer_close(&connection->peer);
	free(connection->slots);
	free(connection->free_slots);
	free(connection->headers);
	free(connection->iov);
	free(connection->contents);
}

/* How much of `all` the connections up to this one get; differences add up to all. */
static uint64_t share_before(uint64_t all, uint64_t index, uint64_t n)
{
	return (uint64_t) ((unsigned __int128) all * index / n);
}

void connection_share(struct connection *connection, uint64_t n_requests)
{
	uint64_t index = connection->index;
	uint64_t n = connection->load->settings->connections;
	uint64_t n_blocks = connection->load->n_blocks;

	connection->first_block = share_before(n_blocks, index, n);
	connection->n_blocks = share_before(n_blocks, index + 1, n) - connection->first_block;
	connection->left = UINT64_MAX;
	if (n_requests)
		connection->left = share_before(n_requests, index + 1, n) -
		                   share_before(n_requests, index, n);
}

static uint64_t random_below(struct connection *connection, uint64_t limit)
{
	connection->random += UINT64_C(0x9e3779b97f4a7c15);
	return (uint64_t) ((unsigned __int128) mix_bits(connection->random) * limit >> 64);
}

static uint64_t choose_offset(struct connection *connection)
{
	const struct settings *settings = connection->load->settings;

	if (settings->pattern == PATTERN_RANDOM)
		return random_below(connection, connection->load->n_blocks) * settings->block;
	uint64_t block = connection->first_block + connection->next_block;

	if (++connection->next_block >= connection->n_blocks)
		connection->next_block = 0;
	return block * settings->block;
}

static bool choose_read(struct connection *connection)
{
	const struct settings *settings = connection->load->settings;

	if (settings->operation == OPERATION_MIX)
		return random_below(connection, 100) < settings->read_percent;
	return settings->operation == OPERATION_READ;
}

/* Adds bytes to the batch, to the last piece where they follow it in memory. */
static void add_bytes(struct connection *connection, uint8_t *at, size_t n)
{
	struct iovec *last = connection->iov + connection->n_iov - 1;

	if (connection->n_iov && (uint8_t *) last->iov_base + last->iov_len == at)
		last->iov_len += n;
	else
		connection->iov[connection->n_iov++] = (struct iovec) {at, n};
}

/* Writes the next request's header there and adds it to the batch; returns its size. */
static size_t add_request(struct connection *connection, uint8_t *header)
{
	const struct settings *settings = connection->load->settings;
	uint32_t index = connection->free_slots[--connection->n_free];
	struct slot *slot = &connection->slots[index];
	enum mode mode = connection->peer.mode;

	*slot = (struct slot) {.offset = choose_offset(connection), .busy = true,
	                       .started = connection->load->now,
	                       .is_read = choose_read(connection)};
	uint16_t flags = mode == MODE_EXTENDED && !slot->is_read ? COMMAND_FLAG_PAYLOAD_LEN : 0;
	size_t n = put_request(header, mode, slot->is_read ? COMMAND_READ : COMMAND_WRITE, flags,
	                       index, slot->offset, settings->block);

	add_bytes(connection, header, n);
	if (slot->is_read)
		return n;
	uint8_t *payload = connection->load->payload;

	if (connection->contents) {
		payload = connection->contents + index * settings->block;
		content_fill(payload, settings->block, settings->seed, slot->offset);
	}
	add_bytes(connection, payload, settings->block);
	return n;
}

/* Takes n sent bytes off the batch. */
static void advance(struct connection *connection, size_t n)
{
	while (n) {
		struct iovec *piece = &connection->iov[connection->iov_at];
		size_t taken = n < piece->iov_len ? n : piece->iov_len;

		piece->iov_base = (uint8_t *) piece->iov_base + taken;
		piece->iov_len -= taken;
		n -= taken;
		if (piece->iov_len == 0)
			connection->iov_at += 1;
	}
}

static void send_batch(struct connection *connection)
{
	while (connection_has_unsent(connection)) {
		unsigned n = connection->n_iov - connection->iov_at;
		ssize_t sent = stream_send(&connection->peer.stream,
		                           connection->iov + connection->iov_at, n);

		if (sent == -EINTR)
			continue;
		if (sent == -EAGAIN)
			return;
		if (sent < 0)
			give_up("connection %u: cannot send: %s", connection->index,
			        strerror((int) -sent));
		advance(connection, (size_t) sent);
	}
	connection->iov_at = connection->n_iov = 0;
}

void connection_submit(struct connection *connection)
{
	uint8_t *header = connection->headers;

	if (connection_has_unsent(connection)) {
		send_batch(connection);
		return;
	}
	if (connection->load->stopping)
		return;
	while (connection->n_free && connection->left) {
		header += add_request(connection, header);
		connection->left -= 1;
	}
	if (connection->n_iov)
		send_batch(connection);
}
