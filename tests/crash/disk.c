/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"

#define BLOCK 4096u

static void *must(void *got)
{
	if (!got) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	return got;
}

static struct disk *disk_of(struct medium *medium)
{
	return container_of(medium, struct disk, medium);
}

/* xorshift64*, which any seed but 0 starts. */
uint64_t disk_random(struct disk *disk, uint64_t end)
{
	disk->random ^= disk->random >> 12;
	disk->random ^= disk->random << 25;
	disk->random ^= disk->random >> 27;
	return (disk->random * UINT64_C(0x2545f4914f6cdd1d) >> 16) % end;
}

static void check_range(const struct disk *disk, uint64_t at, uint64_t length)
{
	if (at > disk->size || length > disk->size - at) {
		fprintf(stderr, "beyond the end of the disk: %llu\n", (unsigned long long) at);
		abort();
	}
}

static int disk_read(struct medium *medium, uint64_t at, void *data, size_t length)
{
	struct disk *disk = disk_of(medium);

	check_range(disk, at, length);
	memcpy(data, disk->cached + at, length);
	return 0;
}

static void add_sector(struct disk *disk, uint64_t at, const uint8_t *bytes)
{
	struct sector *sector;

	if (disk->n_pending == disk->room) {
		disk->room = disk->room ? 2 * disk->room : 256;
		disk->pending = must(realloc(disk->pending, disk->room * sizeof *disk->pending));
	}
	sector = &disk->pending[disk->n_pending++];
	sector->number = (uint32_t) (at / SECTOR);
	memcpy(sector->bytes, bytes, SECTOR);
	memcpy(disk->cached + at, bytes, SECTOR);
}

static int disk_write(struct medium *medium, uint64_t at, const void *data, size_t length)
{
	struct disk *disk = disk_of(medium);
	bool fails = disk->fail_write;

	if (disk->dead)
		return -EIO;
	check_range(disk, at, length);
	if (fails)
		length = disk_random(disk, length / SECTOR) * SECTOR;
	for (size_t done = 0; done < length; done += SECTOR)
		add_sector(disk, at + done, (const uint8_t *) data + done);
	memset(disk->used + at / BLOCK, 1, (length + BLOCK - 1) / BLOCK);
	disk->fail_write = false;
	if (!disk->quiet)
		disk->after_write(disk);
	return disk->dead ? -EIO : fails ? -ENOSPC : 0;
}

static int disk_sync(struct medium *medium)
{
	struct disk *disk = disk_of(medium);
	bool fails = disk->fail_sync;

	if (disk->dead)
		return -EIO;
	for (size_t i = 0; i < disk->n_pending; i++)
		if (!fails || disk_random(disk, 2))
			memcpy(disk->synced + disk->pending[i].number * (size_t) SECTOR,
			       disk->pending[i].bytes, SECTOR);
	disk->n_pending = 0;
	disk->fail_sync = false;
	disk->lies |= fails;
	disk->n_failed += fails;
	if (!fails && !disk->quiet)
		disk->after_sync(disk);
	return fails || disk->dead ? -EIO : 0;
}

static int disk_allocate(struct medium *medium, uint64_t at, uint64_t length)
{
	check_range(disk_of(medium), at, length);
	return disk_of(medium)->dead ? -EIO : 0;
}

static int disk_clear(struct medium *medium, uint64_t at, uint64_t length)
{
	static const uint8_t zeroes[SECTOR];
	struct disk *disk = disk_of(medium);

	if (disk->dead)
		return -EIO;
	check_range(disk, at, length);
	for (uint64_t sector = at; sector < at + length; sector += SECTOR)
		if (memcmp(disk->cached + sector, zeroes, SECTOR) != 0 ||
		    memcmp(disk->synced + sector, zeroes, SECTOR) != 0)
			add_sector(disk, sector, zeroes);
	if (!disk->quiet)
		disk->after_write(disk);
	return disk->dead ? -EIO : 0;
}

static void next_used(const struct disk *disk, uint64_t at, uint64_t *ret)
{
	const uint8_t *from = disk->used + at / BLOCK;
	const uint8_t *found = memchr(from, 1, disk->size / BLOCK - at / BLOCK);

	*ret = found ? at + (uint64_t) (found - from) * BLOCK : UINT64_MAX;
}

static int disk_next_data(struct medium *medium, uint64_t at, uint64_t *ret)
{
	next_used(disk_of(medium), at, ret);
	return 0;
}

static const struct medium_ops disk_ops = {
	.read = disk_read,
	.write = disk_write,
	.sync = disk_sync,
	.allocate = disk_allocate,
	.clear = disk_clear,
	.next_data = disk_next_data,
};

void disk_init(struct disk *disk, size_t size, uint64_t seed)
{
	*disk = (struct disk) { .medium = { .ops = &disk_ops }, .size = size, .random = seed };
	disk->synced = must(calloc(1, size));
	disk->cached = must(calloc(1, size));
	disk->used = must(calloc(1, size / BLOCK));
}

void disk_deinit(struct disk *disk)
{
	free(disk->synced);
	free(disk->cached);
	free(disk->used);
	free(disk->pending);
}

/* Images */

static const struct image *image_of(struct medium *medium)
{
	return container_of(medium, struct image, medium);
}

static int image_read(struct medium *medium, uint64_t at, void *data, size_t length)
{
	const struct image *image = image_of(medium);
	const struct disk *disk = image->disk;

	check_range(disk, at, length);
	memcpy(data, disk->synced + at, length);
	for (size_t i = 0; i < disk->n_pending; i++) {
		uint64_t sector = disk->pending[i].number * (uint64_t) SECTOR;

		if (image->chosen[i] && sector >= at && sector < at + length)
			memcpy((uint8_t *) data + (sector - at), disk->pending[i].bytes, SECTOR);
	}
	return 0;
}

static int image_next_data(struct medium *medium, uint64_t at, uint64_t *ret)
{
	next_used(image_of(medium)->disk, at, ret);
	return 0;
}

static int image_sync(struct medium *medium)
{
	(void) medium;
	return 0;
}

/* Who opens a store writes nothing. */
static const struct medium_ops image_ops = {
	.read = image_read,
	.sync = image_sync,
	.next_data = image_next_data,
};

/* Whole writes alone, the end or the beginning of what was written, nearly all, or anything. */
static void choose_some(struct image *image, struct disk *disk)
{
	size_t n = disk->n_pending;
	size_t edge = disk_random(disk, n + 1);
	unsigned kind = (unsigned) disk_random(disk, 6);
	bool with = false;

	for (size_t i = 0; i < n; i++) {
		switch (kind) {
		case 0:
			image->chosen[i] = i < edge;
			break;
		case 1:
			image->chosen[i] = i >= edge;
			break;
		case 2:
			image->chosen[i] = disk_random(disk, 8) != 0;
			break;
		case 3:         /* blocks are not torn, but come in any order */
			if (disk->pending[i].number % (BLOCK / SECTOR) == 0)
				with = disk_random(disk, 2);
			image->chosen[i] = with;
			break;
		default:
			image->chosen[i] = (uint8_t) disk_random(disk, 2);
			break;
		}
	}
}

void image_take(struct image *image, struct disk *disk, enum survivors survivors)
{
	image->medium.ops = &image_ops;
	image->disk = disk;
	if (image->room < disk->n_pending) {
		image->room = 2 * disk->n_pending;
		image->chosen = must(realloc(image->chosen, image->room));
	}
	if (survivors == SURVIVES_SOME)
		choose_some(image, disk);
	else if (disk->n_pending)
		memset(image->chosen, survivors == SURVIVES_ALL, disk->n_pending);
}

void image_deinit(struct image *image)
{
	free(image->chosen);
	*image = (struct image) { 0 };
}

void disk_become(struct disk *disk, const struct image *image)
{
	for (size_t i = 0; i < disk->n_pending; i++)
		if (image->chosen[i])
			memcpy(disk->synced + disk->pending[i].number * (size_t) SECTOR,
			       disk->pending[i].bytes, SECTOR);
	disk->n_pending = 0;
	memcpy(disk->cached, disk->synced, disk->size);
	disk->dead = disk->lies = disk->fail_sync = false;
}
