/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store on a medium in memory whose operations fail when told to, and on a real file.
 * Losing power is tests/crash.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/attr.h"
#include "dirty/store-check.h"
#include "dirty/store-geometry.h"
#include "dirty/store.h"
#include "scratch.h"

#define MEMORY_SIZE (8u << 20)

struct memory {
	struct medium medium;
	uint8_t *bytes;
	unsigned n_done;                /* writes, syncs, allocations, clears */
	unsigned fail_at;               /* the one that fails; 0: none */
	int error;
};

static struct memory *memory_of(struct medium *medium)
{
	return container_of(medium, struct memory, medium);
}

static int attempt(struct medium *medium)
{
	struct memory *memory = memory_of(medium);

	return ++memory->n_done == memory->fail_at ? memory->error : 0;
}

static int memory_read(struct medium *medium, uint64_t at, void *data, size_t length)
{
	if (at + length > MEMORY_SIZE)
		return -EIO;
	memcpy(data, memory_of(medium)->bytes + at, length);
	return 0;
}

static int memory_write(struct medium *medium, uint64_t at, const void *data, size_t length)
{
	int r = at + length > MEMORY_SIZE ? -ENOSPC : attempt(medium);

	if (r == 0)
		memcpy(memory_of(medium)->bytes + at, data, length);
	return r;
}

static int memory_sync(struct medium *medium)
{
	return attempt(medium);
}

static int memory_allocate(struct medium *medium, uint64_t at, uint64_t length)
{
	return at + length > MEMORY_SIZE ? -ENOSPC : attempt(medium);
}

static int memory_clear(struct medium *medium, uint64_t at, uint64_t length)
{
	int r = at + length > MEMORY_SIZE ? -ENOSPC : attempt(medium);

	if (r == 0)
		memset(memory_of(medium)->bytes + at, 0, length);
	return r;
}

static const struct medium_ops memory_ops = {
	.read = memory_read,
	.write = memory_write,
	.sync = memory_sync,
	.allocate = memory_allocate,
	.clear = memory_clear,
};

/* 300 MiB and a bit in 4 KiB granules: three pages, of which the last is short. */
static const struct store_geometry geometry = {
	.granule_shift = 12, .region_shift = 16, .arm_limit = 64,
	.size = (UINT64_C(300) << 20) + 100,
};

struct bench {
	struct memory memory;
	struct store store;
	struct store_recovery found;
	struct catalogue next;
	struct failure why;
};

static int reopen(struct bench *b)
{
	store_close(&b->store);
	free(b->found.regions);
	b->why.code = 0;
	return store_open(&b->store, &b->memory.medium, &b->found, &b->why);
}

static int commit(struct bench *b)
{
	b->why.code = 0;
	return store_commit(&b->store, &b->next, &b->why);
}

static int record(struct bench *b, const uint32_t *regions, uint32_t n_regions,
                  const uint32_t *pages, uint32_t n_pages)
{
	b->why.code = 0;
	return store_write_record(&b->store, &(struct store_record) { .regions = regions,
		.n_regions = n_regions, .pages = pages, .n_pages = n_pages }, &b->why);
}

/* With a bitmap that records into area 2. */
static struct bench *bench_new(void)
{
	struct bench *b = calloc(1, sizeof *b);

	b->memory = (struct memory) { .medium = { .ops = &memory_ops },
	                              .bytes = calloc(1, MEMORY_SIZE) };
	CHECK_EQ("format", store_format(&b->memory.medium, &geometry, "a disk", &b->why), 0);
	CHECK_EQ("open", reopen(b), 0);
	CHECK(!b->found.unclean);
	b->next = b->store.catalogue;
	b->next.attached = true;
	b->next.recording = 2;
	b->next.deltas[2].id = b->next.next_id++;
	b->next.n_bitmaps = 1;
	strcpy(b->next.bitmaps[0].name, "nightly");
	b->next.bitmaps[0].follows = true;
	CHECK_EQ("prepare", store_prepare_area(&b->store, 2, &b->why), 0);
	CHECK_EQ("commit", commit(b), 0);
	b->store.deltas[2] = delta_new(1, 2, b->store.n_granules);
	return b;
}

static void bench_free(struct bench *b)
{
	store_close(&b->store);
	free(b->found.regions);
	free(b->memory.bytes);
	free(b);
}

/* Writes back all three pages under one record that arms region 4. */
static int write_back(struct bench *b)
{
	static const uint32_t regions[] = { 4 }, pages[] = { 0, 1, 2 };
	int r = record(b, regions, 1, pages, 3);

	if (r == 0)
		r = store_write_pages(&b->store, b->store.deltas[2], pages, 3, &b->why);
	return r == 0 ? store_sync(&b->store, &b->why) : r;
}

static uint8_t *slot_bytes(struct bench *b, uint32_t page, unsigned slot)
{
	return b->memory.bytes + page_slot_at(&b->store, 2, page, slot);
}

/* The slot that counts. */
static unsigned counting(const struct bench *b, uint32_t page)
{
	return b->store.page_sequences[2][page] & 1;
}

TEST(geometries_that_cannot_be_are_refused)
{
	static const struct {
		const char *where;
		struct store_geometry geometry;
	} bad[] = {
		{ "granule", { 11, 16, 64, 1 << 20 } },
		{ "granule", { 25, 26, 64, 1 << 20 } },
		{ "region", { 12, 15, 64, 1 << 20 } },
		{ "region", { 12, 35, 64, 1 << 20 } },
		{ "region below granule", { 20, 18, 64, 1 << 20 } },
		{ "arm limit", { 12, 16, 63, 1 << 20 } },
		{ "arm limit", { 12, 16, 65537, 1 << 20 } },
		{ "no size", { 12, 16, 64, 0 } },
		{ "negative size", { 12, 16, 64, UINT64_MAX } },
		{ "too many granules", { 12, 34, 64, INT64_MAX } },
		{ "too many regions", { 24, 24, 64, INT64_MAX } },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (!store_geometry_wrong(&bad[i].geometry))
			CHECK_STR(bad[i].where, "accepted", "refused");
	CHECK_STR("good", store_geometry_wrong(&geometry), NULL);
	CHECK_STR("16 TiB", store_geometry_wrong(&(struct store_geometry)
		{ 16, 22, 1024, UINT64_C(16) << 40 }), NULL);
}

TEST(bits_catalogue_and_cleanness_come_back)
{
	struct bench *b = bench_new();

	delta_set(b->store.deltas[2], 64, 80);          /* region 4 */
	delta_set(b->store.deltas[2], 70000, 70001);
	CHECK_EQ("write back", write_back(b), 0);
	CHECK_EQ("disarm", record(b, NULL, 0, NULL, 0), 0);
	b->next = b->store.catalogue;
	b->next.attached = false;
	CHECK_EQ("detach", commit(b), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK(!b->found.unclean && b->found.n_armed == 0 && b->found.n_torn_pages == 0);
	CHECK_EQ("dirty", delta_count(b->store.deltas[2]), 17);
	CHECK(delta_test(b->store.deltas[2], 70000) && !delta_take_ahead(b->store.deltas[2], 0));
	CHECK_EQ("bitmaps", b->store.catalogue.n_bitmaps, 1);
	CHECK_STR("name", b->store.catalogue.bitmaps[0].name, "nightly");
	CHECK_STR("identity", b->store.catalogue.identity, "a disk");
	bench_free(b);
}

TEST(what_was_armed_is_dirty_and_counted_after_an_unclean_end)
{
	static const uint32_t regions[] = { 4, 4800 };
	struct bench *b = bench_new();

	delta_set(b->store.deltas[2], 64, 70);
	CHECK_EQ("write back", write_back(b), 0);
	CHECK_EQ("arm", record(b, regions, 2, NULL, 0), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK(b->found.unclean && !b->found.record_missing);
	CHECK_EQ("armed", b->found.n_armed, 2);
	CHECK_EQ("armed", b->found.regions[1], 4800);
	CHECK_EQ("still armed", b->store.n_armed, 2);
	/* Ten granules of region 4, and what the device has of region 4800: 100 bytes. */
	CHECK_EQ("over-reported", b->found.over_reported, 10 * 4096 + 100);
	CHECK_EQ("dirty", delta_count(b->store.deltas[2]), 17);
	CHECK(delta_take_ahead(b->store.deltas[2], 0) && !delta_take_ahead(b->store.deltas[2], 1) &&
	      delta_take_ahead(b->store.deltas[2], 2));
	bench_free(b);
}

/* Page 1 twice: then both of its slots are in use. */
static struct bench *bench_with_two_slots(void)
{
	struct bench *b = bench_new();

	delta_set(b->store.deltas[2], 40000, 40001);
	CHECK_EQ("write back", write_back(b), 0);
	delta_set(b->store.deltas[2], 64, 66);
	delta_set(b->store.deltas[2], 50000, 50001);
	CHECK_EQ("write back", write_back(b), 0);
	return b;
}

TEST(a_page_torn_while_it_was_announced_falls_back)
{
	struct bench *b = bench_with_two_slots();
	unsigned slot = counting(b, 1);

	slot_bytes(b, 1, slot)[2000] ^= 1;
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 0);
	CHECK(delta_test(b->store.deltas[2], 40000) && !delta_test(b->store.deltas[2], 50000));
	CHECK_EQ("other slot", counting(b, 1), !slot);
	/* Whatever is written next mends it. */
	CHECK_EQ("record", record(b, b->found.regions, b->found.n_armed, NULL, 0), 0);
	CHECK_EQ("mended", counting(b, 1), slot);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 0);
	CHECK(!delta_test(b->store.deltas[2], 50001));
	bench_free(b);
}

TEST(a_page_damaged_for_another_reason_is_dirty_as_a_whole)
{
	for (unsigned attached = 0; attached < 2; attached++) {
		struct bench *b = bench_with_two_slots();

		CHECK_EQ("disarm", record(b, NULL, 0, NULL, 0), 0);
		b->next = b->store.catalogue;
		b->next.attached = attached;
		CHECK_EQ("commit", commit(b), 0);
		slot_bytes(b, 1, counting(b, 1))[2000] ^= 1;
		CHECK_EQ("reopen", reopen(b), 0);
		CHECK_EQ("torn", b->found.n_torn_pages, 1);
		CHECK_EQ("dirty", delta_count(b->store.deltas[2]), 2 + DELTA_PAGE_GRANULES);
		CHECK_EQ("record", record(b, NULL, 0, NULL, 0), 0);
		CHECK_EQ("reopen", reopen(b), 0);
		CHECK_EQ("mended", b->found.n_torn_pages, 0);
		CHECK_EQ("dirty", delta_count(b->store.deltas[2]), 2 + DELTA_PAGE_GRANULES);
		bench_free(b);
	}
}

TEST(the_slot_that_was_not_being_written_does_not_fall_back)
{
	static const uint32_t regions[] = { 4 }, pages[] = { 1 };
	struct bench *b = bench_with_two_slots();

	CHECK_EQ("announce", record(b, regions, 1, pages, 1), 0);
	slot_bytes(b, 1, counting(b, 1))[2000] ^= 1;
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 1);
	CHECK(delta_test(b->store.deltas[2], 50000));
	bench_free(b);
}

TEST(a_page_with_both_slots_damaged_is_mended_twice)
{
	struct bench *b = bench_with_two_slots();

	slot_bytes(b, 1, 0)[100] ^= 1;
	slot_bytes(b, 1, 1)[100] ^= 1;
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 1);
	CHECK_EQ("record", record(b, NULL, 0, NULL, 0), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 0);
	CHECK(delta_test(b->store.deltas[2], 50001));
	bench_free(b);
}

TEST(without_any_record_everything_is_dirty_and_stays_so)
{
	struct bench *b = bench_with_two_slots();
	uint64_t at = b->store.record_at, size = b->store.record_size;

	memset(b->memory.bytes + at, 0xaa, 2 * size);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK(b->found.record_missing);
	CHECK_EQ("dirty", delta_count(b->store.deltas[2]), b->store.n_granules);
	CHECK_EQ("over-reported", b->found.over_reported, geometry.size - UINT64_C(4) * 4096);
	/* The first record must not make believe that nothing was armed. */
	CHECK_EQ("record", record(b, NULL, 0, NULL, 0), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK(!b->found.record_missing);
	CHECK_EQ("dirty", delta_count(b->store.deltas[2]), b->store.n_granules);
	bench_free(b);
}

TEST(one_copy_of_anything_may_rot)
{
	struct bench *b = bench_with_two_slots();
	const uint64_t places[] = {
		0, STORE_BLOCK, b->store.catalogue_at, b->store.catalogue_at + CATALOGUE_SIZE,
		b->store.record_at, b->store.record_at + b->store.record_size,
	};

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		b->memory.bytes[places[i] + 70] ^= 4;
		CHECK_EQ("reopen", reopen(b), 0);
		CHECK_EQ("armed", b->found.n_armed, 1);
		CHECK_EQ("bitmaps", b->store.catalogue.n_bitmaps, 1);
		b->memory.bytes[places[i] + 70] ^= 4;
	}
	b->memory.bytes[places[2] + 70] ^= 4;
	b->memory.bytes[places[3] + 70] ^= 4;
	CHECK_EQ("both catalogues", reopen(b), -EBADMSG);
	b->memory.bytes[20] ^= 4;
	b->memory.bytes[STORE_BLOCK + 20] ^= 4;
	CHECK_EQ("both geometries", reopen(b), -EBADMSG);
	bench_free(b);
}

TEST(page_sequences_go_on_after_reopening)
{
	struct bench *b = bench_with_two_slots();
	uint64_t before = b->store.page_sequence;

	CHECK_EQ("written", before, 3);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("highest", b->store.page_sequence, before);
	delta_set(b->store.deltas[2], 3, 4);
	CHECK_EQ("write back", write_back(b), 0);
	CHECK(b->store.page_sequences[2][0] >> 1 > before);
	bench_free(b);
}

TEST(a_failed_operation_is_reported_and_can_be_tried_again)
{
	for (unsigned step = 1; step < 40; step++) {
		struct bench *b = bench_with_two_slots();
		int r;

		delta_set(b->store.deltas[2], 71, 72);
		delta_set(b->store.deltas[2], 60000, 60003);
		b->memory.fail_at = b->memory.n_done + step;
		b->memory.error = -EIO;
		r = write_back(b);
		if (r == 0) {
			b->next = b->store.catalogue;
			r = commit(b);
		}
		b->memory.fail_at = 0;
		CHECK(r == 0 || r == -EIO);
		CHECK_EQ("told", r == 0, b->why.code == 0);
		if (b->store.unsure)
			CHECK_EQ("unsure", record(b, NULL, 0, NULL, 0), -EIO);
		b->next = b->store.catalogue;
		CHECK_EQ("again", commit(b), 0);
		CHECK_EQ("again", write_back(b), 0);
		CHECK_EQ("reopen", reopen(b), 0);
		CHECK_EQ("torn", b->found.n_torn_pages, 0);
		CHECK(delta_test(b->store.deltas[2], 71) && delta_test(b->store.deltas[2], 60002));
		CHECK(delta_test(b->store.deltas[2], 50000) && delta_test(b->store.deltas[2], 40000));
		bench_free(b);
	}
}

TEST(a_failed_sync_takes_pages_back)
{
	struct bench *b = bench_with_two_slots();
	unsigned slot = counting(b, 1);

	delta_set(b->store.deltas[2], 60000, 60001);
	b->memory.fail_at = b->memory.n_done + 6;       /* record, sync, record, 2 pages, sync */
	b->memory.error = -EIO;
	CHECK_EQ("sync", write_back(b), -EIO);
	CHECK_EQ("counts as before", counting(b, 1), slot);
	/* What may be torn is written before the next record. */
	CHECK_EQ("record", record(b, NULL, 0, NULL, 0), 0);
	CHECK_EQ("counts", counting(b, 1), !slot);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK(b->found.n_torn_pages == 0 && delta_test(b->store.deltas[2], 60000));
	bench_free(b);
}

TEST(want_of_space_shows_when_an_area_is_prepared)
{
	struct bench *b = bench_with_two_slots();

	b->why.code = 0;
	CHECK_EQ("beyond", store_prepare_area(&b->store, AREAS_MAX - 1, &b->why), 0);
	b->memory.fail_at = b->memory.n_done + 2;
	b->memory.error = -ENOSPC;
	CHECK_EQ("full", store_prepare_area(&b->store, 7, &b->why), -ENOSPC);
	CHECK_EQ("goes on", write_back(b), 0);
	bench_free(b);
}

TEST(a_catalogue_that_could_not_be_read_is_not_committed)
{
	struct bench *b = bench_with_two_slots();

	b->next = b->store.catalogue;
	b->next.bitmaps[0].name[0] = '\n';
	CHECK_EQ("name", commit(b), -EINVAL);
	b->next = b->store.catalogue;
	b->next.deltas[9].id = b->next.next_id++;
	CHECK_EQ("area that was not prepared", commit(b), -EIO);
	CHECK_EQ("goes on", write_back(b), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	bench_free(b);
}

TEST(a_page_of_an_older_delta_in_the_same_place_is_clean)
{
	struct bench *b = bench_with_two_slots();

	b->next = b->store.catalogue;
	b->next.recording = NO_AREA;
	b->next.bitmaps[0].follows = false;
	(void) catalogue_sweep(&b->next);
	CHECK_EQ("without", commit(b), 0);
	b->next.recording = 2;
	b->next.deltas[2].id = b->next.next_id++;
	CHECK_EQ("with, but not cleared", commit(b), 0);
	CHECK_EQ("reopen", reopen(b), 0);
	CHECK_EQ("torn", b->found.n_torn_pages, 0);
	CHECK_EQ("armed alone", delta_count(b->store.deltas[2]), 16);
	bench_free(b);
}

TEST(no_bytes_crash_the_reader)
{
	struct bench *b = bench_with_two_slots();
	uint8_t *good = malloc(MEMORY_SIZE);
	uint64_t area = page_slot_at(&b->store, 2, 0, 0), random = 1;

	memcpy(good, b->memory.bytes, MEMORY_SIZE);
	for (unsigned i = 0; i < 600; i++) {
		for (unsigned k = 0; k < 1 + i % 7; k++) {
			uint64_t at;

			random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
			at = (random >> 33) % (k % 2 ? b->store.areas_at : 3 * 8192);
			b->memory.bytes[k % 2 ? at : area + at] = (uint8_t) (random >> 20);
		}
		(void) reopen(b);
		memcpy(b->memory.bytes, good, MEMORY_SIZE);
		CHECK_EQ("good again", reopen(b), 0);
	}
	free(good);
	bench_free(b);
}

/* On a file */

struct lines {
	unsigned n;
	char last[512];
};

static void note(void *userdata, const char *line)
{
	struct lines *lines = userdata;

	lines->n++;
	(void) snprintf(lines->last, sizeof lines->last, "%s", line);
}

static void check_file(const char *path, int want, struct lines *lines, struct store_report *report)
{
	struct failure why = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	*lines = (struct lines) { 0 };
	CHECK_EQ("check", store_check(fd, note, lines, report, &why), want);
	CHECK_EQ("findings", report->n_findings, lines->n);
	store_report_clear(report);
	close(fd);
}

TEST(a_file_keeps_a_store_and_the_check_reads_it)
{
	struct scratch scratch = scratch_start();
	const char *path = scratch_path(&scratch, "store");
	struct store_report *report = malloc(sizeof *report);
	struct bench *b = calloc(1, sizeof *b);
	struct file_medium file;
	struct lines lines;

	file_medium_init(&file, open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	CHECK_EQ("format", store_format(&file.medium, &geometry, "a disk", &b->why), 0);
	CHECK_EQ("open", store_open(&b->store, &file.medium, &b->found, &b->why), 0);
	b->next = b->store.catalogue;
	b->next.attached = true;
	b->next.recording = 2;
	b->next.deltas[2].id = b->next.next_id++;
	CHECK_EQ("prepare", store_prepare_area(&b->store, 2, &b->why), 0);
	CHECK_EQ("commit", commit(b), 0);
	b->store.deltas[2] = delta_new(1, 2, b->store.n_granules);
	delta_set(b->store.deltas[2], 40000, 40003);
	CHECK_EQ("write back", write_back(b), 0);

	check_file(path, 0, &lines, report);
	CHECK_STR("findings", lines.last, "");
	CHECK(report->catalogue.attached && report->recovery.unclean);
	CHECK_EQ("written", report->deltas[2].n_written, 1);
	CHECK_EQ("dirty, armed region included", report->deltas[2].dirty_bytes, 19 * 4096);

	CHECK_EQ("damage", pwrite(file.fd, "x", 1, (off_t) page_slot_at(&b->store, 2, 2, 1)), 1);
	check_file(path, 0, &lines, report);
	CHECK_EQ("findings", lines.n, 1);
	CHECK_EQ("cut off", ftruncate(file.fd, 5000), 0);
	check_file(path, -EBADMSG, &lines, report);
	CHECK_EQ("findings", lines.n, 1);
	store_close(&b->store);
	file_medium_close(&file);
	free(report);
	free(b);
	scratch_end(&scratch);
}

TEST(clearing_and_allocating_a_file_keep_the_rest)
{
	struct scratch scratch = scratch_start();
	struct file_medium file;
	struct medium *medium = &file.medium;
	uint8_t got[3 * 4096], ones[3 * 4096];
	uint64_t next;

	file_medium_init(&file, open(scratch_path(&scratch, "f"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	memset(ones, 0xff, sizeof ones);
	CHECK_EQ("write", medium->ops->write(medium, 0, ones, sizeof ones), 0);
	CHECK_EQ("allocate", medium->ops->allocate(medium, 4096, 100 * 4096), 0);
	CHECK_EQ("clear", medium->ops->clear(medium, 4096, 4096), 0);
	CHECK_EQ("clear beyond", medium->ops->clear(medium, 1 << 30, 4096), 0);
	CHECK_EQ("sync", medium->ops->sync(medium), 0);
	CHECK_EQ("read", medium->ops->read(medium, 0, got, sizeof got), 0);
	CHECK(got[4095] == 0xff && got[4096] == 0 && got[8191] == 0 && got[8192] == 0xff);
	CHECK_EQ("read beyond", medium->ops->read(medium, 1 << 30, got, sizeof got), 0);
	CHECK(got[0] == 0 && got[sizeof got - 1] == 0);
	CHECK_EQ("data", medium->ops->next_data(medium, 0, &next), 0);
	CHECK_EQ("data", next, 0);
	CHECK_EQ("data", medium->ops->next_data(medium, 1 << 30, &next), 0);
	CHECK(next == UINT64_MAX);
	file_medium_close(&file);
	scratch_end(&scratch);
}
