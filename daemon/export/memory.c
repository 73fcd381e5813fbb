/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/memory.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TOP_ORDER 6u                    /* 4 KiB << 6 is MEMORY_PIECE */
#define TOP_PAGES (1u << TOP_ORDER)
#define CHUNK_PAGES (MEMORY_CHUNK / MEMORY_PAGE)
#define NOT_FREE UINT8_MAX
#define NONE UINT32_MAX
#define FLOOR_MAX (32u << 10)
#define FLOOR_MIN (4u << 10)

_Static_assert(MEMORY_PAGE << TOP_ORDER == MEMORY_PIECE, "orders and sizes agree");

enum { COLD, IDLE, WARM };

/* No block is smaller than a sector, so that any block holds whole ones. */
static unsigned order_for(const struct memory *m, uint32_t size)
{
	unsigned order = m->least_order;

	while (MEMORY_PAGE << order < size)
		order++;
	return order;
}

/* An eighth of the budget for the floors, and as much for what arrived ahead of its turn. */
static uint32_t floor_size(uint64_t budget, unsigned n_clients, uint32_t align)
{
	uint32_t least = align * 4 > FLOOR_MIN ? align * 4 : FLOOR_MIN;
	uint32_t size = FLOOR_MAX > least ? FLOOR_MAX : least;

	while (size > least && (uint64_t) size * n_clients > budget / 8)
		size /= 2;
	return size;
}

static void push(struct memory *m, uint32_t page, unsigned order)
{
	uint32_t first = m->free_list[order];

	m->order[page] = (uint8_t) order;
	m->prev[page] = NONE;
	m->next[page] = first;
	if (first != NONE)
		m->prev[first] = page;
	m->free_list[order] = page;
}

static void unlink_free(struct memory *m, uint32_t page)
{
	uint32_t next = m->next[page], prev = m->prev[page];

	if (prev == NONE)
		m->free_list[m->order[page]] = next;
	else
		m->next[prev] = next;
	if (next != NONE)
		m->prev[next] = prev;
	m->order[page] = NOT_FREE;
}

static int allocate_index(struct memory *m)
{
	m->next = malloc(m->n_pages * sizeof *m->next);
	m->prev = malloc(m->n_pages * sizeof *m->prev);
	m->order = malloc(m->n_pages);
	m->warm = calloc(m->n_pages / CHUNK_PAGES, 1);
	m->floors_free = malloc(m->n_floors * sizeof *m->floors_free);
	return m->next && m->prev && m->order && m->warm && m->floors_free ? 0 : -ENOMEM;
}

/* The floors are many and small: a huge page would be committed for the first of them. */
static int map(struct memory *m)
{
	m->mapping_size = m->size + MEMORY_CHUNK;
	m->mapping = mmap(NULL, m->mapping_size, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->mapping == MAP_FAILED) {
		m->mapping = NULL;
		return -errno;
	}
	m->base = (uint8_t *) (((uintptr_t) m->mapping + MEMORY_CHUNK - 1) &
	                       ~(uintptr_t) (MEMORY_CHUNK - 1));
	(void) madvise(m->base, m->shared_size, MADV_HUGEPAGE);
	(void) madvise(m->base + m->shared_size, m->size - m->shared_size, MADV_NOHUGEPAGE);
	return 0;
}

int memory_suffices(uint64_t budget, unsigned n_clients, uint32_t align, struct failure *why)
{
	uint64_t floors = (uint64_t) floor_size(budget, n_clients, align) * n_clients;

	if (floors <= budget / 8)
		return 0;
	return fail_plain(why, EINVAL, "Memory= is too small for %u connections: %" PRIu64
	                  " MiB at least", n_clients, (floors * 8 >> 20) + 1);
}

int memory_init(struct memory *m, uint64_t budget, unsigned n_clients, uint32_t align,
                struct failure *why)
{
	uint64_t floors;
	int r = memory_suffices(budget, n_clients, align, why);

	*m = (struct memory) { .n_floors = n_clients };
	m->least_order = order_for(m, align);
	m->floor_size = floor_size(budget, n_clients, align);
	floors = (uint64_t) m->floor_size * n_clients;
	if (r < 0)
		return r;
	m->shared_size = (budget - 2 * floors) / MEMORY_CHUNK * MEMORY_CHUNK;
	m->n_pages = (uint32_t) (m->shared_size / MEMORY_PAGE);
	m->size = m->shared_size + floors;
	if (allocate_index(m) < 0)
		return fail(why, ENOMEM, "cannot allocate the index of a buffer of %zu bytes", m->size);

	if (map(m) < 0)
		return fail(why, errno, "cannot map %zu bytes of buffers", m->size);
	memset(m->order, NOT_FREE, m->n_pages);
	for (unsigned i = 0; i <= TOP_ORDER; i++)
		m->free_list[i] = NONE;
	for (uint32_t page = m->n_pages; page; page -= TOP_PAGES)
		push(m, page - TOP_PAGES, TOP_ORDER);
	for (unsigned i = n_clients; i; i--)
		m->floors_free[m->n_floors_free++] = m->base + m->shared_size +
		                                     (size_t) (i - 1) * m->floor_size;
	memory_set_busy(m, 0);
	return 0;
}

void memory_deinit(struct memory *m)
{
	if (m->mapping)
		munmap(m->mapping, m->mapping_size);
	free(m->next);
	free(m->prev);
	free(m->order);
	free(m->warm);
	free(m->floors_free);
	mappings_clear(&m->more);
	*m = (struct memory) { 0 };
}

void memory_admit(struct memory *m, struct holder *who)
{
	assert(m->n_floors_free > 0);
	*who = (struct holder) { .floor = m->floors_free[--m->n_floors_free] };
}

void memory_dismiss(struct memory *m, struct holder *who)
{
	assert(who->held == 0 && who->n_whole == 0 && !who->floor_taken);
	m->floors_free[m->n_floors_free++] = who->floor;
	who->floor = NULL;
}

int memory_grow(struct memory *m, unsigned n)
{
	uint8_t **grown = realloc(m->floors_free, (m->n_floors + n) * sizeof *grown), *at;

	if (!grown)
		return -ENOMEM;
	m->floors_free = grown;
	at = mappings_add(&m->more, (size_t) n * m->floor_size);
	if (!at)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		m->floors_free[m->n_floors_free++] = at + (size_t) i * m->floor_size;
	m->n_floors += n;
	return 0;
}

void memory_set_busy(struct memory *m, unsigned n_busy)
{
	m->share = m->shared_size / 2 / (n_busy ? n_busy : 1);
	if (m->share < MEMORY_PIECE)
		m->share = MEMORY_PIECE;
}

/* Takes a block of `order` from a list at or above it, and gives the upper halves back. */
static uint32_t split_from(struct memory *m, unsigned from, unsigned order)
{
	uint32_t page = m->free_list[from];

	unlink_free(m, page);
	while (from > order) {
		from--;
		push(m, page + (1u << from), from);
	}
	return page;
}

static struct block take_order(struct memory *m, struct holder *who, unsigned order, unsigned least)
{
	uint32_t page = NONE;

	for (unsigned from = order; page == NONE && from <= TOP_ORDER; from++)
		if (m->free_list[from] != NONE)
			page = split_from(m, from, order);
	/* Fragmented: the largest block there is will do. */
	while (page == NONE && order > least)
		if (m->free_list[--order] != NONE)
			page = split_from(m, order, order);
	if (page == NONE)
		return (struct block) { 0 };

	m->warm[page / CHUNK_PAGES] = WARM;
	m->shared_used += MEMORY_PAGE << order;
	who->held += MEMORY_PAGE << order;
	return (struct block) {
		.at = m->base + (size_t) page * MEMORY_PAGE,
		.size = MEMORY_PAGE << order,
	};
}

struct block memory_take(struct memory *m, struct holder *who, uint32_t want, uint32_t least)
{
	unsigned order = order_for(m, want);
	uint32_t size = MEMORY_PAGE << order;

	assert(want && want <= MEMORY_PIECE && least <= want);
	who->over_share = who->held && who->held + size > m->share;
	if (!m->closed && m->shared_used + size <= m->shared_size && !who->over_share) {
		struct block b = take_order(m, who, order, order_for(m, least));

		if (b.at)
			return b;
	}
	if (least <= m->floor_size && !who->floor_taken) {
		who->floor_taken = true;
		return (struct block) { .at = who->floor, .size = m->floor_size, .is_floor = true };
	}
	return (struct block) { 0 };
}

bool memory_allows_whole(const struct memory *m, struct holder *who, uint64_t total)
{
	who->over_share = who->n_whole && who->held + total > m->share;
	return !who->over_share;
}

bool memory_has(const struct memory *m, uint64_t total)
{
	return total <= m->shared_size - m->shared_used;
}

struct block memory_take_more(struct memory *m, struct holder *who, uint32_t want)
{
	struct block b = take_order(m, who, order_for(m, want), m->least_order);

	assert(b.at);                   /* memory_has() was asked first */
	return b;
}

static void free_pages(struct memory *m, uint32_t page, unsigned order)
{
	while (order < TOP_ORDER) {
		uint32_t buddy = page ^ (1u << order);

		if (m->order[buddy] != order)
			break;
		unlink_free(m, buddy);
		page &= ~(1u << order);
		order++;
	}
	push(m, page, order);
}

void memory_give(struct memory *m, struct holder *who, struct block *block)
{
	if (!block->at)
		return;
	if (block->is_floor) {
		who->floor_taken = false;
	} else {
		size_t page = (size_t) (block->at - m->base) / MEMORY_PAGE;

		free_pages(m, (uint32_t) page, order_for(m, block->size));
		m->shared_used -= block->size;
		who->held -= block->size;
	}
	m->released = true;
	*block = (struct block) { 0 };
}

static bool is_free(const struct memory *m, uint32_t chunk)
{
	for (uint32_t i = 0; i < CHUNK_PAGES; i += TOP_PAGES)
		if (m->order[chunk * CHUNK_PAGES + i] != TOP_ORDER)
			return false;
	return true;
}

/* Only chunks that are free as a whole, and were not used since the last call. */
bool memory_cool(struct memory *m)
{
	bool more = false;

	for (uint32_t i = 0; i < m->n_pages / CHUNK_PAGES; i++) {
		if (m->warm[i] == IDLE && is_free(m, i)) {
			(void) madvise(m->base + (size_t) i * MEMORY_CHUNK, MEMORY_CHUNK,
			               MADV_DONTNEED);
			m->warm[i] = COLD;
		} else if (m->warm[i] == WARM) {
			m->warm[i] = IDLE;
			more = true;
		} else if (m->warm[i] == IDLE) {
			more = true;
		}
	}
	return more;
}
