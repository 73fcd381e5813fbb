/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verb `status`: asks for one context of the whole export, one request after the other, each
 * from where the last reply ended.  Neighbours of the same kind count as one extent, so the
 * number does not depend on where replies end.
 */
#include "verbs.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "handshake.h"
#include "report.h"

#define LARGEST_STATUS (64u << 20)      /* of one reply's payload */
#define LARGEST_QUESTION 0xffff0000u    /* in 32 bits, and aligned for every export */

struct pass {
	struct peer peer;
	uint8_t *payload;
	size_t n_payload;               /* allocated */
	uint64_t offset;                /* known up to here */
	uint64_t kind;                  /* of the last extent */
	uint64_t n_extents;
	uint64_t n_requests;
};

struct chunk {
	unsigned type;
	bool is_done;
	size_t n;
};

static void receive_chunk(struct pass *pass, struct chunk *ret_chunk)
{
	bool extended = pass->peer.mode == MODE_EXTENDED;
	uint8_t header[LARGEST_HEADER];

	stream_receive_all(&pass->peer.stream, header, extended ? EXTENDED_CHUNK_SIZE : CHUNK_SIZE);
	uint64_t n = extended ? get_be64(header + 24) : get_be32(header + 16);

	if (get_be32(header) != (extended ? EXTENDED_CHUNK_MAGIC : CHUNK_MAGIC) ||
	    get_be64(header + 8) != pass->n_requests || n > LARGEST_STATUS)
		give_up("the reply to block status at %" PRIu64 " is none", pass->offset);
	ret_chunk->is_done = get_be16(header + 4) & CHUNK_FLAG_DONE;
	ret_chunk->type = get_be16(header + 6);
	ret_chunk->n = n;
	if (n > pass->n_payload) {
		free(pass->payload);
		pass->payload = allocate(1, n);
		pass->n_payload = n;
	}
	stream_receive_all(&pass->peer.stream, pass->payload, n);
}

static void add_extent(struct pass *pass, uint64_t length, uint64_t kind)
{
	if (length == 0)
		give_up("an empty extent at %" PRIu64, pass->offset);
	if (pass->n_extents == 0 || pass->kind != kind)
		pass->n_extents += 1;
	pass->kind = kind;
	uint64_t left = pass->peer.size - pass->offset;

	pass->offset += length < left ? length : left;
}

static void add_extents(struct pass *pass, size_t n)
{
	bool extended = pass->peer.mode == MODE_EXTENDED;
	size_t head = extended ? 8 : 4;
	size_t step = extended ? 16 : 8;

	if (n < head + step || (n - head) % step ||
	    (extended && get_be32(pass->payload + 4) != (n - head) / step))
		give_up("block status at %" PRIu64 " with %zu bytes", pass->offset, n);
	if (get_be32(pass->payload) != pass->peer.context)
		return;
	for (const uint8_t *at = pass->payload + head; at < pass->payload + n; at += step)
		add_extent(pass, extended ? get_be64(at) : get_be32(at),
		           extended ? get_be64(at + 8) : get_be32(at + 4));
}

static void ask(struct pass *pass)
{
	bool extended = pass->peer.mode == MODE_EXTENDED;
	uint8_t request[LARGEST_HEADER];
	uint64_t length = pass->peer.size - pass->offset;
	uint64_t before = pass->offset;
	struct chunk chunk;

	if (!extended && length > LARGEST_QUESTION)
		length = LARGEST_QUESTION;
	pass->n_requests += 1;
	stream_send_all(&pass->peer.stream, request,
	         put_request(request, pass->peer.mode, COMMAND_BLOCK_STATUS, 0, pass->n_requests,
	                     pass->offset, length));
	do {
		receive_chunk(pass, &chunk);
		if (chunk.type == (extended ? CHUNK_BLOCK_STATUS_EXT : CHUNK_BLOCK_STATUS))
			add_extents(pass, chunk.n);
		else if (chunk.type & CHUNK_ERROR_BIT && chunk.n >= 4)
			give_up("block status at %" PRIu64 ": error %u", before,
			        get_be32(pass->payload));
		else if (chunk.type != CHUNK_NONE)
			give_up("block status at %" PRIu64 ": a chunk of type %u", before,
			        chunk.type);
	} while (!chunk.is_done);
	if (pass->offset == before)
		give_up("block status at %" PRIu64 " says nothing", before);
}

static double walk(struct pass *pass)
{
	uint64_t started = now_ns();

	pass->offset = 0;
	pass->n_extents = 0;
	pass->n_requests = 0;
	while (pass->offset < pass->peer.size)
		ask(pass);
	return (double) (now_ns() - started) / 1e9;
}

static void tell(const struct settings *settings, const struct pass *pass, const double *seconds,
                 double cpu)
{
	if (!settings->json)
		printf("%" PRIu64 " extents, %" PRIu64 " requests, seconds", pass->n_extents,
		       pass->n_requests);
	else
		printf("{\"extents\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"seconds\":[",
		       pass->n_extents, pass->n_requests);
	for (uint64_t i = 0; i < settings->repeat; i++)
		printf("%s%.6f", !settings->json ? " " : i ? "," : "", seconds[i]);
	printf(settings->json ? "],\"cpu_seconds\":%.6f}\n" : ", %.3f CPU s\n", cpu);
}

int run_status(const struct settings *settings)
{
	double *seconds = allocate(settings->repeat, sizeof *seconds);
	struct pass pass = {.payload = NULL};
	struct address address;

	if (settings->mode == MODE_SIMPLE)
		refuse_usage("block status needs structured replies or extended headers");
	address_parse(settings->to, &address);
	peer_open(&address, settings, true, &pass.peer);
	double cpu = cpu_seconds();

	for (uint64_t i = 0; i < settings->repeat; i++)
		seconds[i] = walk(&pass);
	tell(settings, &pass, seconds, cpu_seconds() - cpu);
	peer_close(&pass.peer);
	free(pass.payload);
	free(seconds);
	return 0;
}
