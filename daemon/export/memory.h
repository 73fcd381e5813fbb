/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory budget of an export: every buffer that a client can make us hold.
 *
 * The budget (Memory=) is one range of address space, committed when used and given back
 * when a burst is over.  Its shared part comes in huge pages where the kernel has them: a large
 * transfer is then a few pieces of memory for the block layer, not dozens (measured: 1 MiB reads
 * gain a fifth, and cost a fifth less).  Three quarters are shared: blocks of 4 KiB to 256 KiB from a buddy
 * allocator.  The rest are floors: for each of MaxConnections= clients one block for a piece
 * of a request, and one for what it sent but could not yet be taken on.  So whatever the
 * others hold, a client that moves gets its small requests served.
 *
 * A holder may have at most its fair share of the shared part, except that one reply
 * which must be whole (see memory_allows_whole) may have more.  Nobody holds one
 * part of what it needs while it waits for another, so waiting never ends in a deadlock.
 *
 * Used by the ring's thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "export/mappings.h"

#define MEMORY_PAGE 4096u
#define MEMORY_PIECE (256u << 10)       /* the largest block, bytes */
#define MEMORY_CHUNK (2u << 20)         /* what is committed and given back at once, bytes */

/* One client's account; embedded in its connection.  Zero is a valid start. */
struct holder {
	uint64_t held;                  /* bytes of the shared part */
	unsigned n_whole;               /* whole replies among that; the caller counts them */
	uint8_t *floor;                 /* its own block, from memory_admit() */
	bool floor_taken;
	bool over_share;                /* that was why it got none the last time: it waits for itself */
};

struct memory {
	void *mapping;                  /* base, and what aligning it took */
	size_t mapping_size;
	uint8_t *base;                  /* aligned to MEMORY_CHUNK */
	size_t size;                    /* of the whole range */
	uint64_t shared_size, shared_used;      /* bytes */
	uint32_t floor_size;            /* bytes of one floor block and of a receive buffer */
	unsigned n_floors;
	struct mappings more;           /* floors that were added later */
	uint64_t share;                 /* what one holder may have now */

	uint8_t **floors_free;          /* a stack */
	unsigned n_floors_free;

	/* The buddy allocator; indexes are pages of the shared part. */
	uint32_t n_pages;
	unsigned least_order;           /* of any block: a device's sector fits */
	uint32_t *next, *prev;
	uint8_t *order;                 /* of the free block that starts here; NOT_FREE else */
	uint32_t free_list[7];
	uint8_t *warm;                  /* per chunk: 0 given back, 1 idle, 2 in use lately */

	bool closed;                    /* one who needs much is saving up: floors only */
	bool released;                  /* something was given back since the flag was cleared */
};

/* `budget` bytes for at most `n_clients`; `align` is the device's sector size. */
int memory_init(struct memory *m, uint64_t budget, unsigned n_clients, uint32_t align,
                struct failure *why);
void memory_deinit(struct memory *m);

/* Whether a budget has room for the floors of so many clients. */
int memory_suffices(uint64_t budget, unsigned n_clients, uint32_t align, struct failure *why);

/* Floors for `n` more clients, beyond the budget.  -ENOMEM, and nothing has changed. */
int memory_grow(struct memory *m, unsigned n);

/* A client's floor.  There are as many as clients; asserts that. */
void memory_admit(struct memory *m, struct holder *who);
void memory_dismiss(struct memory *m, struct holder *who);

/* How many clients have requests in flight: what a fair share is follows from it. */
void memory_set_busy(struct memory *m, unsigned n_busy);

struct block {
	uint8_t *at;                    /* aligned to MEMORY_PAGE; NULL for none */
	uint32_t size;                  /* bytes; a power of two, or the floor's size */
	bool is_floor;
};

/*
 * A block of `want` bytes (to MEMORY_PIECE) or less, but at least `least`: from the shared
 * part within the holder's share, unless that is closed; else from its floor.  .at is NULL when
 * neither has it now.
 */
struct block memory_take(struct memory *m, struct holder *who, uint32_t want, uint32_t least);

/* Whether a holder may have a whole reply of `total` bytes beside what it holds: within its share,
 * or if it has no other. */
bool memory_allows_whole(const struct memory *m, struct holder *who, uint64_t total);

/* Whether `total` bytes could be taken now by one reply that must be whole; the blocks are
 * then had one by one with memory_take_more(), which does not look at the share. */
bool memory_has(const struct memory *m, uint64_t total);
struct block memory_take_more(struct memory *m, struct holder *who, uint32_t want);

void memory_give(struct memory *m, struct holder *who, struct block *block);

/*
 * Called once a second: returns pages that were not used since the last call to the kernel.
 * True while any are left that a later call may return.
 */
bool memory_cool(struct memory *m);
