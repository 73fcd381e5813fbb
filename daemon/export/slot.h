/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests in flight, and the pieces they are made of.
 *
 * A slot is one request from its header to the last byte of its reply.  A piece is one
 * stretch of it with one buffer: at most 256 KiB that go to or come from the device at
 * once.  The first piece lies in the slot; more come from a pool.  Nothing is allocated for a
 * request: slots and pieces come from slabs that only grow (to what the connections may
 * have in flight).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "export/memory.h"
#include "export/order.h"
#include "export/pool.h"
#include "export/ring.h"
#include "wire/reply.h"
#include "wire/request.h"

struct conn;
struct slot;
struct piece;
struct view;

/* One stretch of a reply, in the connection's queue until the kernel has taken it all. */
struct out {
	struct out *next;
	struct piece *piece;            /* whose buffer the body lies in; NULL for none */
	struct slot *last;              /* this is the end of the slot's reply; else NULL */
	const uint8_t *body;
	uint32_t body_len;              /* bytes */
	uint32_t sent;                  /* bytes of header and body together */
	uint8_t header_len;
	uint8_t header[REPLY_HEADER_MAX];
};

struct piece {
	struct op op;                   /* first: the device's operation */
	struct slot *slot;
	struct piece *next;             /* in slot->whole, or in the pool */
	struct block block;
	uint64_t start;                 /* where on the device the buffer's first byte belongs */
	uint32_t length;                /* bytes of device I/O; whole sectors, or in the tail */
	uint32_t moved;                 /* of them done; while a WRITE arrives, of data_len */
	uint8_t *io_at;                 /* the transfer under way: see io.c */
	uint64_t io_start;
	uint32_t io_length;
	bool io_writes, io_durable;
	void (*io_done)(struct piece *piece, int error);
	uint32_t data_at, data_len;     /* the client's bytes inside the buffer */
	bool in_tail;                   /* beyond the last whole sector: by tail_fd */
	bool mends;                     /* its edges must be read before it is written: mend.c */
	bool durable;
	struct range range;             /* what writing it changes */
	void (*mend_done)(struct piece *piece, int error);
	bool evicted;                   /* the buffer was given up; read again before sending */
	bool pooled;                    /* not slot->first */
	uint8_t extent[16];             /* BLOCK_STATUS: one that needs no buffer */
	struct out out;
};

struct slot {
	struct slot *next;              /* in a list of waiting ones, or in the pool */
	struct conn *conn;
	const struct command *command;
	struct request req;
	uint64_t at;                    /* next byte of the effect that no piece has */
	unsigned n_io;                  /* pieces and steps under way */
	uint64_t status_wanted;         /* BLOCK_STATUS: bit i, the connection's context i */
	struct view *view;              /* BLOCK_STATUS: what the job looks at; with a reference */
	uint32_t n_extents;             /* BLOCK_STATUS: found by the job */
	enum nbd_error error;           /* the first that happened */
	const char *sentence;           /* static; for structured errors */
	bool receiving;                 /* WRITE: more payload is to come */
	bool whole;                     /* READ: one chunk or a simple reply */
	bool has_whole;                 /* and its memory: counted in holder.n_whole */
	bool starved;                   /* in its connection's list */
	bool (*resume)(struct slot *slot);      /* what it wants memory for; true if it got it */
	void (*step)(struct slot *slot);        /* of zeroing or discarding: see bulk.h */
	unsigned n_places;              /* that it takes */
	struct range range;
	struct piece *pieces, **pieces_end;     /* of a whole READ, or one context, in order */
	struct slot *flush_next;        /* see flush.c */
	void (*flushed)(struct slot *slot, int error);
	int way;                        /* WRITE_ZEROES: of fallocate(2); see zero.c */
	uint64_t by_hand_until;         /* WRITE_ZEROES: the end of what is written as zeroes */
	struct op op;                   /* operations without a piece */
	struct job job;
	int job_result;
	struct piece first;
	bool first_used;
	struct out final;               /* a reply, or the end of one, without data */
};

struct slot_pool {
	struct slot *slots;
	struct piece *pieces;
	struct slab *slabs;
};

void slot_pool_init(struct slot_pool *pool);
void slot_pool_deinit(struct slot_pool *pool);

/* Whether there is another slot, or memory for it: then slot_new() has one. */
bool slot_at_hand(struct slot_pool *pool);

/* A clean slot, or NULL when memory is out. */
struct slot *slot_new(struct slot_pool *pool, struct conn *conn);
void slot_free(struct slot_pool *pool, struct slot *slot);

/* A clean piece of the slot: its first, or one from the pool, or NULL. */
struct piece *piece_new(struct slot_pool *pool, struct slot *slot);

/* Its buffer must have been given back. */
void piece_free(struct slot_pool *pool, struct piece *piece);
