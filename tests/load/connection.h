/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection of a run: it keeps `depth` requests in flight.  connection.c submits them,
 * many to one send; replies.c takes the replies, many from one receive.  A cookie is the
 * index of a slot.  Nothing is allocated after connection_open().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "handshake.h"
#include "histogram.h"
#include "settings.h"

/* What the connections of a run share. */
struct load {
	const struct settings *settings;
	uint8_t *payload;               /* what every write sends that is not verified */
	uint8_t *received;              /* all connections receive into this */
	uint64_t n_blocks;              /* of the region */
	uint64_t now;                   /* when the bytes at hand came */
	bool stopping;                  /* submit no more */
	uint64_t n_done;
	uint64_t n_errors;
	uint64_t n_bytes;               /* of requests that succeeded */
	struct histogram latency;
};

#define RECEIVE_SIZE (512u << 10)

struct slot {
	uint64_t offset;
	uint64_t started;
	uint32_t n_got;                 /* bytes of data and holes, of a read */
	bool busy;
	bool is_read;
	bool failed;
};

/* Where the stream of replies stands. */
struct parser {
	uint8_t stash[LARGEST_HEADER];  /* the start of a piece whose rest has not come */
	size_t n_stash;
	size_t n_prefix;                /* the next piece: these bytes, or 0 for a header */
	uint64_t n_bulk;                /* then so many to check or drop */
	uint64_t offset;                /* of the bulk's first byte, on the export */
	bool is_data;                   /* the bulk is content of the export */
	bool is_done;                   /* the request ends with this reply */
	unsigned type;                  /* of the chunk */
	uint64_t length;                /* of the chunk's payload */
	uint32_t slot;
};

struct connection {
	struct load *load;
	struct peer peer;
	unsigned index;
	struct slot *slots;
	uint32_t *free_slots;           /* a stack */
	uint32_t n_free;
	uint64_t left;                  /* requests to submit */
	uint64_t random;
	uint64_t first_block;           /* the part that a sequential pattern walks */
	uint64_t n_blocks;
	uint64_t next_block;
	uint8_t *headers;               /* the batch that is being sent */
	uint8_t *contents;              /* of verified writes, one block per slot */
	struct iovec *iov;
	unsigned n_iov;
	unsigned iov_at;                /* sent so far */
	struct parser parser;
};

void connection_open(struct connection *connection, struct load *load, unsigned index,
                     const struct address *address);
void connection_close(struct connection *connection);

/* Divides the region and the requests (0: without end) among all connections. */
void connection_share(struct connection *connection, uint64_t n_requests);

/* Fills the free slots and sends, unless the batch before is not out yet. */
void connection_submit(struct connection *connection);

/* Receives once, waiting unless told, and takes what came. */
void connection_receive(struct connection *connection, bool dontwait);

static inline bool connection_has_unsent(const struct connection *connection)
{
	return connection->iov_at < connection->n_iov;
}

/* Nothing is in flight and nothing more will be. */
static inline bool connection_is_finished(const struct connection *connection)
{
	return connection->n_free == connection->load->settings->depth &&
	       (connection->left == 0 || connection->load->stopping);
}
