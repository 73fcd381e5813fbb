/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/mend.h"

#include <string.h>

#include "export/change.h"
#include "export/conn.h"

static uint32_t sector_of(const struct piece *piece)
{
	return export_of(piece->slot)->device.sector;
}

/* Where a piece from `at` ends, given a buffer of `room` bytes, edges included. */
static uint64_t piece_end(const struct device *dev, uint64_t at, uint64_t end, uint32_t room,
                          bool *ret_mends)
{
	uint64_t start = sector_down(dev, at);

	*ret_mends = false;
	if (at >= dev->direct_size)
		return end - at > room ? at + room : end;
	if (end > dev->direct_size)
		end = dev->direct_size;
	if (end - start > room)
		end = start + sector_down(dev, room);
	*ret_mends = at != start || end != sector_down(dev, end);
	if (*ret_mends && sector_up(dev, end) - start > room - 2 * dev->sector)
		end = start + sector_down(dev, room - 2 * dev->sector);
	return end;
}

struct piece *mend_piece(struct slot *slot, uint64_t at, uint64_t end, bool *ret_again)
{
	struct loop *loop = loop_of(slot);
	struct device *dev = &export_of(slot)->device;
	uint64_t stop, want, start;
	struct piece *piece;
	struct block block;
	bool mends;

	stop = piece_end(dev, at, end, MEMORY_PIECE, &mends);
	want = sector_up(dev, stop) - sector_down(dev, at) + (mends ? 2 * dev->sector : 0);
	block = memory_take(&loop->memory, &slot->conn->holder, (uint32_t) want,
	                    dev->sector * (mends ? 3 : 1));
	*ret_again = !block.at;
	if (!block.at)
		return NULL;
	piece = piece_new(&loop->slots, slot);
	if (!piece) {
		memory_give(&loop->memory, &slot->conn->holder, &block);
		return NULL;
	}
	stop = piece_end(dev, at, end, block.size, &piece->mends);
	piece->in_tail = at >= dev->direct_size;
	start = piece->in_tail ? at : sector_down(dev, at);
	piece->block = block;
	piece->start = start;
	piece->length = (uint32_t) ((piece->in_tail ? stop : sector_up(dev, stop)) - start);
	piece->data_at = (uint32_t) (at - start);
	piece->data_len = (uint32_t) (stop - at);
	return piece;
}

void mend_drop(struct piece *piece)
{
	struct loop *loop = loop_of(piece->slot);

	change_give(loop, &piece->range);
	memory_give(&loop->memory, &piece->slot->conn->holder, &piece->block);
	piece_free(&loop->slots, piece);
}

static void on_written(struct piece *piece, int error)
{
	change_give(loop_of(piece->slot), &piece->range);
	piece->mend_done(piece, error);
}

static void write_piece(struct piece *piece)
{
	piece_write(piece, piece->durable, on_written);
}

/* Behind the data in the buffer there is room for the sectors at both edges. */
static uint8_t *scratch(const struct piece *piece, unsigned edge)
{
	return piece->block.at + piece->length + edge * sector_of(piece);
}

static uint32_t odd_bytes_at_end(const struct piece *piece)
{
	return (piece->data_at + piece->data_len) & (sector_of(piece) - 1);
}

static void on_last_sector_read(struct piece *piece, int error)
{
	uint32_t from = odd_bytes_at_end(piece);

	if (error) {
		on_written(piece, error);
		return;
	}
	memcpy(piece->block.at + piece->data_at + piece->data_len, scratch(piece, 1) + from,
	       sector_of(piece) - from);
	write_piece(piece);
}

static void read_last_sector(struct piece *piece)
{
	uint32_t sector = sector_of(piece);

	piece_read_part(piece, scratch(piece, 1), piece->start + piece->length - sector, sector,
	                on_last_sector_read);
}

static void on_first_sector_read(struct piece *piece, int error)
{
	uint32_t sector = sector_of(piece);

	if (error) {
		on_written(piece, error);
		return;
	}
	memcpy(piece->block.at, scratch(piece, 0), piece->data_at);
	if (odd_bytes_at_end(piece) == 0) {
		write_piece(piece);
	} else if (piece->length == sector) {
		memcpy(scratch(piece, 1), scratch(piece, 0), sector);   /* both edges in one */
		on_last_sector_read(piece, 0);
	} else {
		read_last_sector(piece);
	}
}

/* Its range is held: nobody else changes these sectors now. */
static void proceed(struct piece *piece)
{
	if (range_refused(&piece->range))
		on_written(piece, range_refused(&piece->range));
	else if (!piece->mends)
		write_piece(piece);
	else if (piece->data_at)
		piece_read_part(piece, scratch(piece, 0), piece->start, sector_of(piece),
		                on_first_sector_read);
	else
		read_last_sector(piece);
}

static void on_turn(struct range *range)
{
	struct piece *piece = container_of(range, struct piece, range);

	piece->slot->n_io--;
	proceed(piece);
}

void mend_write(struct piece *piece, bool durable, piece_done done)
{
	piece->durable = durable;
	piece->mend_done = done;
	piece->range = (struct range) {
		.start = piece->start, .end = piece->start + piece->length,
		.alone = piece->mends, .granted = on_turn,
	};
	if (change_take(loop_of(piece->slot), &piece->range))
		proceed(piece);
	else
		piece->slot->n_io++;            /* it counts while it waits */
}
