/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/medium.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"

#define COPY_SIZE 65536u

static int fd_of(struct medium *medium)
{
	return container_of(medium, struct file_medium, medium)->fd;
}

static int file_read(struct medium *medium, uint64_t at, void *data, size_t length)
{
	uint8_t *into = data;

	while (length > 0) {
		ssize_t n = pread(fd_of(medium), into, length, (off_t) at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		into += n;
		at += (uint64_t) n;
		length -= (size_t) n;
	}
	memset(into, 0, length);
	return 0;
}

static int file_write(struct medium *medium, uint64_t at, const void *data, size_t length)
{
	const uint8_t *from = data;

	while (length > 0) {
		ssize_t n = pwrite(fd_of(medium), from, length, (off_t) at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += n;
		at += (uint64_t) n;
		length -= (size_t) n;
	}
	return 0;
}

static int file_sync(struct medium *medium)
{
	int r;

	do
		r = fdatasync(fd_of(medium));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* The end of the file or device; -1 and errno. */
static off_t end_of(int fd)
{
	return lseek(fd, 0, SEEK_END);
}

/* Writes what is there already, or zeroes.  A block device has its space, or will not get it. */
static int allocate_by_writing(struct medium *medium, uint64_t at, uint64_t length)
{
	uint8_t copy[COPY_SIZE];
	struct stat st;
	int r = 0;

	if (fstat(fd_of(medium), &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode)) {
		off_t end = end_of(fd_of(medium));

		return end >= 0 && at + length <= (uint64_t) end ? 0 : -ENOSPC;
	}
	while (length > 0 && r == 0) {
		size_t n = length < sizeof copy ? (size_t) length : sizeof copy;

		r = file_read(medium, at, copy, n);
		if (r == 0)
			r = file_write(medium, at, copy, n);
		at += n;
		length -= n;
	}
	return r;
}

static int file_fallocate(struct medium *medium, int mode, uint64_t at, uint64_t length)
{
	int r;

	do
		r = fallocate(fd_of(medium), mode, (off_t) at, (off_t) length);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static bool is_unsupported(int r)
{
	return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENODEV || r == -EINVAL;
}

static int file_allocate(struct medium *medium, uint64_t at, uint64_t length)
{
	int r = file_fallocate(medium, 0, at, length);

	return is_unsupported(r) ? allocate_by_writing(medium, at, length) : r;
}

/* Beyond the end there is nothing to clear. */
static int clear_by_writing(struct medium *medium, uint64_t at, uint64_t length)
{
	static const uint8_t zeroes[COPY_SIZE];
	off_t end = end_of(fd_of(medium));
	int r = 0;

	if (end < 0)
		return -errno;
	if (at >= (uint64_t) end)
		return 0;
	if (length > (uint64_t) end - at)
		length = (uint64_t) end - at;
	while (length > 0 && r == 0) {
		size_t n = length < sizeof zeroes ? (size_t) length : sizeof zeroes;

		r = file_write(medium, at, zeroes, n);
		at += n;
		length -= n;
	}
	return r;
}

static int file_clear(struct medium *medium, uint64_t at, uint64_t length)
{
	int r = file_fallocate(medium, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length);

	return is_unsupported(r) ? clear_by_writing(medium, at, length) : r;
}

static int file_next_data(struct medium *medium, uint64_t at, uint64_t *ret)
{
	off_t found = lseek(fd_of(medium), (off_t) at, SEEK_DATA);
	off_t end;

	if (found >= 0)
		*ret = (uint64_t) found;
	else if (errno == ENXIO)
		*ret = UINT64_MAX;
	else {
		/* Without SEEK_DATA, at least the end is known. */
		end = end_of(fd_of(medium));
		*ret = end >= 0 && at >= (uint64_t) end ? UINT64_MAX : at;
	}
	return 0;
}

static const struct medium_ops file_ops = {
	.read = file_read,
	.write = file_write,
	.sync = file_sync,
	.allocate = file_allocate,
	.clear = file_clear,
	.next_data = file_next_data,
};

void file_medium_init(struct file_medium *file, int fd)
{
	*file = (struct file_medium) { .medium = { .ops = &file_ops }, .fd = fd };
}

void file_medium_close(struct file_medium *file)
{
	close_fd(&file->fd);
}
