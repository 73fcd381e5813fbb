/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can be exported and what cannot; who keeps whom out; where a sparse file has data. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "export/device.h"
#include "scratch.h"

#define BLOCK 65536u            /* larger than any page here */

static struct export_settings settings_for(const char *path)
{
	return (struct export_settings) { .device = (char *) path };
}

static const char *file_of(struct scratch *s, const char *name, off_t size)
{
	(void) scratch_write(s, name, "", 0);
	if (truncate(s->path, size) != 0)
		CHECK_EQ(s->path, errno, 0);
	return s->path;
}

static void expect_closed(const struct device *dev)
{
	CHECK_EQ("fd", dev->fd, -1);
	CHECK_EQ("tail", dev->tail_fd, -1);
	CHECK(!dev->path);
}

static void expect_refused(const char *path, int code, const char *word)
{
	struct export_settings settings = settings_for(path);
	struct device dev;

	for (int direct = 0; direct < 2; direct++) {
		struct failure why = { 0 };

		settings.direct = direct;
		CHECK_EQ(path, device_open(&dev, &settings, &why), -code);
		CHECK_EQ(path, why.code, code);
		CHECK(strstr(why.text, path) && strstr(why.text, word));
		expect_closed(&dev);
	}
}

TEST(a_file_is_exported_to_its_last_whole_512_bytes)
{
	static const struct {
		off_t size;
		uint64_t exported;
	} rows[] = {
		{ 512, 512 }, { 513, 512 }, { 1023, 512 }, { 1024, 1024 }, { 4095, 3584 },
		{ 4096, 4096 }, { 1048576 + 511, 1048576 }, { 1048576 + 512, 1048576 + 512 },
		{ (off_t) 1 << 40, 1ull << 40 },
	};
	struct scratch s = scratch_start();

	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		const char *path = file_of(&s, "disk", rows[i / 2].size);
		struct export_settings settings = settings_for(path);
		struct failure why = { 0 };
		struct device dev;

		settings.direct = i % 2;
		CHECK_EQ(why.text, device_open(&dev, &settings, &why), 0);
		CHECK_EQ("size", dev.size, rows[i / 2].exported);
		CHECK_EQ("direct", dev.direct_size, dev.size / dev.sector * dev.sector);
		CHECK_EQ("tail", dev.tail_fd >= 0, dev.direct_size < dev.size);
		CHECK(!dev.is_block && !dev.read_only && dev.write_cache && dev.can_discard);
		CHECK(settings.direct || (!dev.direct && dev.sector == 1 && dev.tail_fd < 0));
		CHECK_EQ("flag", (fcntl(dev.fd, F_GETFL) & O_DIRECT) != 0, dev.direct);
		CHECK_EQ("mode", fcntl(dev.fd, F_GETFL) & O_ACCMODE, O_RDWR);
		device_close(&dev);
		expect_closed(&dev);
	}
	scratch_end(&s);
}

TEST(a_read_only_export_opens_its_file_for_reading)
{
	struct scratch s = scratch_start();
	struct export_settings settings = settings_for(file_of(&s, "disk", 1536));
	struct failure why = { 0 };
	struct device dev;

	settings.read_only = true;
	settings.direct = true;
	CHECK_EQ(why.text, device_open(&dev, &settings, &why), 0);
	CHECK(dev.read_only);
	CHECK_EQ("mode", fcntl(dev.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK(dev.tail_fd < 0 || (fcntl(dev.tail_fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
	device_close(&dev);
	scratch_end(&s);
}

TEST(what_is_no_disk_is_refused_with_its_name)
{
	struct scratch s = scratch_start();

	expect_refused(file_of(&s, "empty", 0), ENODATA, "is empty");
	expect_refused(file_of(&s, "tiny", 511), ENODATA, "is empty");
	expect_refused(s.dir, EISDIR, "is a directory");
	expect_refused(scratch_path(&s, "missing"), ENOENT, "No such file");
	expect_refused("/dev/null", ENOTBLK, "neither a block device nor a regular file");
	/* Nobody writes into it: opening it for real would block. */
	CHECK_EQ("fifo", mkfifo(scratch_path(&s, "fifo"), 0600), 0);
	expect_refused(s.path, ENOTBLK, "neither a block device nor a regular file");
	scratch_end(&s);
}

TEST(sharing_is_for_reading_only)
{
	struct scratch s = scratch_start();
	struct export_settings settings = settings_for(file_of(&s, "disk", 4096));
	struct failure why = { 0 };
	struct device dev;

	settings.shared = true;
	CHECK_EQ("open", device_open(&dev, &settings, &why), -EINVAL);
	CHECK(strstr(why.text, "ReadOnly=yes"));
	expect_closed(&dev);
	scratch_end(&s);
}

enum who { WRITER, READER, SHARER, N_WHO };

static int open_as(struct device *dev, const char *path, enum who who, struct failure *why)
{
	struct export_settings settings = settings_for(path);

	settings.read_only = who != WRITER;
	settings.shared = who == SHARER;
	return device_open(dev, &settings, why);
}

TEST(a_writer_is_alone_but_for_those_who_share)
{
	static const bool together[N_WHO][N_WHO] = {
		[WRITER] = { [SHARER] = true },
		[READER] = { [READER] = true, [SHARER] = true },
		[SHARER] = { true, true, true },
	};
	static const char *const names[] = { "writer", "reader", "sharer" };
	struct scratch s = scratch_start();
	const char *path = file_of(&s, "disk", 4096);

	for (unsigned i = 0; i < N_WHO * N_WHO; i++) {
		enum who first = i / N_WHO, second = i % N_WHO;
		struct device a, b, c;
		struct failure why = { 0 };
		char where[40];

		(void) snprintf(where, sizeof where, "%s, then %s", names[first], names[second]);
		CHECK_EQ(where, open_as(&a, path, first, &why), 0);
		CHECK_EQ(where, open_as(&b, path, second, &why),
		         together[first][second] ? 0 : -EBUSY);
		if (!together[first][second]) {
			CHECK(strstr(why.text, path) && strstr(why.text, "is in use"));
			expect_closed(&b);
		}
		/* Neither a refusal nor a close leaves a lock behind. */
		device_close(&a);
		device_close(&b);
		why = (struct failure) { 0 };
		CHECK_EQ(where, open_as(&c, path, WRITER, &why), 0);
		device_close(&c);
	}
	scratch_end(&s);
}

/* A name is no identity: the same file by another link is the same. */
TEST(a_file_has_one_identity_whatever_its_name)
{
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	struct device a, b, c;
	char other[100];

	(void) snprintf(other, sizeof other, "%s/link", s.dir);
	CHECK_EQ("symlink", symlink(file_of(&s, "disk", 4096), other), 0);
	CHECK_EQ(why.text, open_as(&a, s.path, SHARER, &why), 0);
	CHECK_EQ(why.text, open_as(&b, other, SHARER, &why), 0);
	CHECK_EQ(why.text, open_as(&c, file_of(&s, "second", 4096), SHARER, &why), 0);
	CHECK_STR("identity", b.identity, a.identity);
	CHECK(strcmp(c.identity, a.identity) != 0);
	device_close(&a);
	device_close(&b);
	device_close(&c);
	scratch_end(&s);
}

/* A file in memory: its holes are as large as its pages, on every machine. */
static int sparse_file(off_t size)
{
	int fd = memfd_create("sparse", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ("size", ftruncate(fd, size), 0);
	return fd;
}

static void fill(int fd, unsigned block)
{
	static uint8_t data[BLOCK];

	memset(data, 0x55, sizeof data);
	CHECK_EQ("write", pwrite(fd, data, BLOCK, (off_t) block * BLOCK), BLOCK);
}

static void expect_extent(int fd, uint64_t offset, uint64_t end, uint64_t want_end, bool want_hole)
{
	bool hole = !want_hole;
	char where[60];

	(void) snprintf(where, sizeof where, "at %#llx to %#llx", (unsigned long long) offset,
	                (unsigned long long) end);
	CHECK_EQ(where, device_extent(fd, offset, end, &hole), want_end);
	CHECK_EQ(where, hole, want_hole);
}

TEST(extents_follow_the_holes_of_a_file_and_end_where_asked)
{
	AUTO_FD fd = sparse_file(8 * BLOCK);

	fill(fd, 2);
	fill(fd, 3);
	fill(fd, 6);
	expect_extent(fd, 0, 8 * BLOCK, 2 * BLOCK, true);
	expect_extent(fd, 1, 8 * BLOCK, 2 * BLOCK, true);
	expect_extent(fd, 0, BLOCK, BLOCK, true);
	expect_extent(fd, 2 * BLOCK - 1, 8 * BLOCK, 2 * BLOCK, true);
	expect_extent(fd, 2 * BLOCK, 8 * BLOCK, 4 * BLOCK, false);
	expect_extent(fd, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK, false);
	expect_extent(fd, 4 * BLOCK - 1, 8 * BLOCK, 4 * BLOCK, false);
	expect_extent(fd, 4 * BLOCK, 8 * BLOCK, 6 * BLOCK, true);
	expect_extent(fd, 6 * BLOCK, 8 * BLOCK, 7 * BLOCK, false);
	expect_extent(fd, 7 * BLOCK, 8 * BLOCK, 8 * BLOCK, true);
	expect_extent(fd, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK, true);
}

/* What is no longer there must fail when it is read: it is not a hole that reads as zeroes. */
TEST(behind_the_end_of_a_file_that_shrank_there_is_no_hole)
{
	AUTO_FD fd = sparse_file(8 * BLOCK);

	fill(fd, 1);
	CHECK_EQ("shrink", ftruncate(fd, 4 * BLOCK), 0);
	expect_extent(fd, 4 * BLOCK, 8 * BLOCK, 8 * BLOCK, false);
	expect_extent(fd, 5 * BLOCK, 6 * BLOCK, 6 * BLOCK, false);
	expect_extent(fd, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK, false);
	/* The hole before it ends with the file, not where was asked. */
	expect_extent(fd, 2 * BLOCK, 8 * BLOCK, 4 * BLOCK, true);
	expect_extent(fd, 0, 8 * BLOCK, BLOCK, true);

	CHECK_EQ("shrink", ftruncate(fd, 0), 0);
	expect_extent(fd, 0, 8 * BLOCK, 8 * BLOCK, false);
}

/* The kernel cannot be asked about the last page below 2^63. */
TEST(near_the_largest_offset_everything_is_data)
{
	uint64_t size = INT64_MAX / 512 * 512, trusted = (uint64_t) INT64_MAX - (2u << 20);
	AUTO_FD fd = sparse_file((off_t) size);

	expect_extent(fd, 0, size, trusted, true);
	expect_extent(fd, trusted - 1, size, trusted, true);
	expect_extent(fd, trusted, size, size, false);
	expect_extent(fd, size - 1, size, size, false);
}

TEST(after_a_hole_the_same_is_found)
{
	AUTO_FD fd = sparse_file(8 * BLOCK);
	bool hole;

	fill(fd, 2);
	fill(fd, 3);
	fill(fd, 7);
	CHECK_EQ("data", device_extent_after_hole(fd, 2 * BLOCK, 8 * BLOCK, &hole), 4 * BLOCK);
	CHECK(!hole);
	CHECK_EQ("cut", device_extent_after_hole(fd, 2 * BLOCK, 3 * BLOCK, &hole), 3 * BLOCK);
	CHECK(!hole);
	CHECK_EQ("to the end", device_extent_after_hole(fd, 7 * BLOCK, 8 * BLOCK, &hole), 8 * BLOCK);
	CHECK(!hole);
	CHECK_EQ("a hole all the same", device_extent_after_hole(fd, 4 * BLOCK, 8 * BLOCK, &hole),
	         7 * BLOCK);
	CHECK(hole);
}

TEST(what_cannot_tell_is_all_data)
{
	int ends[2];

	expect_extent(-1, 0, 4096, 4096, false);
	CHECK_EQ("pipe", pipe(ends), 0);
	expect_extent(ends[0], 5, 4096, 4096, false);
	close_fd(&ends[0]);
	close_fd(&ends[1]);
}

static void expect_read_extent(const struct device *dev, struct known_data *known, uint64_t offset,
                               uint64_t end, uint64_t want_end, bool want_hole)
{
	bool hole = !want_hole;

	CHECK_EQ("end", device_read_extent(dev, known, offset, end, &hole), want_end);
	CHECK_EQ("hole", hole, want_hole);
}

TEST(reads_remember_data_until_it_is_forgotten)
{
	AUTO_FD fd = sparse_file(8 * BLOCK);
	struct device dev = { .fd = fd, .size = 8 * BLOCK };
	struct known_data known = { 0 };

	for (unsigned i = 2; i < 6; i++)
		fill(fd, i);
	expect_read_extent(&dev, &known, 0, BLOCK, BLOCK, true);
	CHECK_EQ("holes are not remembered", known.end, 0);
	expect_read_extent(&dev, &known, 3 * BLOCK, 4 * BLOCK, 4 * BLOCK, false);
	CHECK_EQ("start", known.start, 3 * BLOCK);
	CHECK_EQ("end", known.end, 6 * BLOCK);

	CHECK_EQ("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * BLOCK,
	                            BLOCK), 0);
	expect_read_extent(&dev, &known, 4 * BLOCK, 8 * BLOCK, 6 * BLOCK, false);
	expect_read_extent(&dev, &known, 6 * BLOCK, 7 * BLOCK, 7 * BLOCK, true);
	expect_read_extent(&dev, &known, 2 * BLOCK, 8 * BLOCK, 4 * BLOCK, false);
	device_note_punch(&dev);
	expect_read_extent(&dev, &known, 4 * BLOCK, 8 * BLOCK, 5 * BLOCK, true);
}

TEST(a_block_device_is_read_without_looking)
{
	AUTO_FD fd = sparse_file(8 * BLOCK);
	struct device dev = { .fd = fd, .size = 8 * BLOCK, .is_block = true };
	struct known_data known = { 0 };

	expect_read_extent(&dev, &known, 0, 8 * BLOCK, 8 * BLOCK, false);
}
