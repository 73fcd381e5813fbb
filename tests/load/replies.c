/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream of replies of one connection of a run.  It is cut into pieces: headers, the few
 * bytes that start some payloads, and bulk, which is checked or dropped where it lies in the
 * receive buffer.  A reply that the protocol does not allow ends the program.
 */
#include "connection.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "content.h"
#include "report.h"

#define ERRORS_TOLD 10u         /* one line each; the others only count */
#define ERROR_PREFIX 6u         /* error, length of the message */
#define DATA_PREFIX 8u
#define HOLE_PREFIX 12u

/* Counts a request as failed, once. */
static void fail_request(struct connection *connection, struct slot *slot, const char *what,
                         uint64_t number)
{
	struct load *load = connection->load;

	if (slot->failed)
		return;
	slot->failed = true;
	if (load->n_errors++ < ERRORS_TOLD)
		fprintf(stderr, "nbd-load: connection %u: %s at %" PRIu64 ": %s %" PRIu64 "\n",
		        connection->index, slot->is_read ? "read" : "write", slot->offset, what,
		        number);
}

static void finish_request(struct connection *connection)
{
	struct load *load = connection->load;
	struct slot *slot = &connection->slots[connection->parser.slot];

	if (slot->is_read && !slot->failed && slot->n_got != load->settings->block)
		fail_request(connection, slot, "bytes came:", slot->n_got);
	histogram_add(&load->latency, load->now - slot->started);
	load->n_done += 1;
	if (!slot->failed)
		load->n_bytes += load->settings->block;
	slot->busy = false;
	connection->free_slots[connection->n_free++] = connection->parser.slot;
}

static void find_slot(struct connection *connection, uint64_t cookie)
{
	if (cookie >= connection->load->settings->depth || !connection->slots[cookie].busy)
		give_up("connection %u: a reply to no request: cookie %" PRIu64, connection->index,
		        cookie);
	connection->parser.slot = (uint32_t) cookie;
}

/* The reply goes on with so much bulk, or is over. */
static void expect_bulk(struct connection *connection, uint64_t n, bool is_data)
{
	struct parser *parser = &connection->parser;

	parser->n_bulk = n;
	parser->is_data = is_data;
	if (n == 0 && parser->is_done)
		finish_request(connection);
}

static void take_bulk(struct connection *connection, const uint8_t *at, size_t n)
{
	struct parser *parser = &connection->parser;
	const struct settings *settings = connection->load->settings;

	if (parser->is_data && settings->verify) {
		size_t good = content_check(at, n, settings->seed, parser->offset);

		if (good < n)
			fail_request(connection, &connection->slots[parser->slot],
			             "wrong content at", parser->offset + good);
	}
	parser->offset += n;
	parser->n_bulk -= n;
	if (parser->n_bulk == 0 && parser->is_done)
		finish_request(connection);
}

static void take_simple(struct connection *connection, const uint8_t *header)
{
	uint32_t error = get_be32(header + 4);

	find_slot(connection, get_be64(header + 8));
	struct slot *slot = &connection->slots[connection->parser.slot];

	if (slot->is_read && connection->peer.mode != MODE_SIMPLE)
		give_up("connection %u: a simple reply to a read", connection->index);
	connection->parser.is_done = true;
	connection->parser.offset = slot->offset;
	if (error)
		fail_request(connection, slot, "error", error);
	uint64_t n = slot->is_read && !error ? connection->load->settings->block : 0;

	slot->n_got += (uint32_t) n;
	expect_bulk(connection, n, true);
}

static void take_chunk(struct connection *connection, const uint8_t *header)
{
	struct parser *parser = &connection->parser;
	bool extended = connection->peer.mode == MODE_EXTENDED;

	find_slot(connection, get_be64(header + 8));
	parser->is_done = get_be16(header + 4) & CHUNK_FLAG_DONE;
	parser->type = get_be16(header + 6);
	parser->length = extended ? get_be64(header + 24) : get_be32(header + 16);
	bool is_read = connection->slots[parser->slot].is_read;

	if (parser->type == CHUNK_NONE && parser->length == 0 && parser->is_done)
		expect_bulk(connection, 0, false);
	else if (parser->type == CHUNK_OFFSET_DATA && is_read && parser->length > DATA_PREFIX)
		parser->n_prefix = DATA_PREFIX;
	else if (parser->type == CHUNK_OFFSET_HOLE && is_read && parser->length == HOLE_PREFIX)
		parser->n_prefix = HOLE_PREFIX;
	else if (parser->type & CHUNK_ERROR_BIT && parser->length >= ERROR_PREFIX)
		parser->n_prefix = ERROR_PREFIX;
	else
		give_up("connection %u: a chunk of type %u with %" PRIu64 " bytes, flags %u",
		        connection->index, parser->type, parser->length, get_be16(header + 4));
}

static void take_header(struct connection *connection, const uint8_t *header)
{
	uint32_t magic = get_be32(header);
	enum mode mode = connection->peer.mode;

	if (magic == SIMPLE_REPLY_MAGIC && mode != MODE_EXTENDED)
		take_simple(connection, header);
	else if (magic == (mode == MODE_EXTENDED ? EXTENDED_CHUNK_MAGIC : CHUNK_MAGIC) &&
	         mode != MODE_SIMPLE)
		take_chunk(connection, header);
	else
		give_up("connection %u: no reply has the magic %#x", connection->index, magic);
}

/* Adds a chunk's part of a read and refuses one that lies outside. */
static void add_part(struct connection *connection, uint64_t offset, uint64_t n)
{
	struct slot *slot = &connection->slots[connection->parser.slot];
	uint64_t block = connection->load->settings->block;

	if (offset < slot->offset || n > block || offset - slot->offset > block - n ||
	    slot->n_got + n > block)
		give_up("connection %u: %" PRIu64 " bytes at %" PRIu64 " in reply to a read of "
		        "%" PRIu64 " at %" PRIu64,
		        connection->index, n, offset, block, slot->offset);
	slot->n_got += (uint32_t) n;
}

static void take_error(struct connection *connection, uint32_t error)
{
	fail_request(connection, &connection->slots[connection->parser.slot], "error", error);
	expect_bulk(connection, connection->parser.length - ERROR_PREFIX, false);
}

static void take_hole(struct connection *connection, uint64_t offset, uint32_t n)
{
	add_part(connection, offset, n);
	if (connection->load->settings->verify)
		fail_request(connection, &connection->slots[connection->parser.slot],
		             "wrong content, a hole, at", offset);
	expect_bulk(connection, 0, false);
}

static void take_prefix(struct connection *connection, const uint8_t *prefix)
{
	struct parser *parser = &connection->parser;

	parser->n_prefix = 0;
	if (parser->type & CHUNK_ERROR_BIT) {
		take_error(connection, get_be32(prefix));
	} else if (parser->type == CHUNK_OFFSET_HOLE) {
		take_hole(connection, get_be64(prefix), get_be32(prefix + 8));
	} else {
		parser->offset = get_be64(prefix);
		add_part(connection, parser->offset, parser->length - DATA_PREFIX);
		expect_bulk(connection, parser->length - DATA_PREFIX, true);
	}
}

/* The size of the piece that starts with these (at least 4) bytes. */
static size_t piece_size(const struct connection *connection, const uint8_t *at)
{
	if (connection->parser.n_prefix)
		return connection->parser.n_prefix;
	if (connection->peer.mode == MODE_EXTENDED)
		return EXTENDED_CHUNK_SIZE;
	return get_be32(at) == CHUNK_MAGIC ? CHUNK_SIZE : SIMPLE_REPLY_SIZE;
}

static void take_piece(struct connection *connection, const uint8_t *piece)
{
	if (connection->parser.n_prefix)
		take_prefix(connection, piece);
	else
		take_header(connection, piece);
}

/* A piece that is not all there, or of which some came before: gathers it in the stash.
 * Returns how many bytes it took. */
static size_t take_through_stash(struct connection *connection, const uint8_t *at, size_t n)
{
	struct parser *parser = &connection->parser;
	size_t taken = 0;

	for (;;) {
		size_t want = parser->n_stash < 4 ? 4 : piece_size(connection, parser->stash);

		if (parser->n_stash == want) {
			parser->n_stash = 0;
			take_piece(connection, parser->stash);
			return taken;
		}
		if (taken == n)
			return taken;
		size_t missing = want - parser->n_stash;
		size_t more = missing < n - taken ? missing : n - taken;

		memcpy(parser->stash + parser->n_stash, at + taken, more);
		parser->n_stash += more;
		taken += more;
	}
}

static void take_bytes(struct connection *connection, const uint8_t *at, size_t n)
{
	struct parser *parser = &connection->parser;

	while (n) {
		size_t taken;

		if (parser->n_bulk) {
			taken = n < parser->n_bulk ? n : parser->n_bulk;
			take_bulk(connection, at, taken);
		} else if (parser->n_stash == 0 && n >= LARGEST_HEADER) {
			taken = piece_size(connection, at);
			take_piece(connection, at);
		} else {
			taken = take_through_stash(connection, at, n);
		}
		at += taken;
		n -= taken;
	}
}

static ssize_t receive(struct connection *connection, bool dontwait)
{
	struct load *load = connection->load;
	ssize_t got = stream_receive(&connection->peer.stream, load->received, RECEIVE_SIZE,
	                             dontwait);

	if (got == -EAGAIN && !dontwait)
		give_up("connection %u: no reply for a minute", connection->index);
	if (got < 0 && got != -EINTR && got != -EAGAIN)
		give_up("connection %u: cannot receive: %s", connection->index,
		        strerror((int) -got));
	if (got == 0)
		give_up("connection %u: the server closed it with %" PRIu64 " requests in flight",
		        connection->index, load->settings->depth - connection->n_free);
	return got;
}

void connection_receive(struct connection *connection, bool dontwait)
{
	struct load *load = connection->load;
	ssize_t got = receive(connection, dontwait);

	while (got > 0) {
		load->now = now_ns();
		take_bytes(connection, load->received, (size_t) got);
		got = stream_has_more(&connection->peer.stream) ? receive(connection, true) : 0;
	}
}
