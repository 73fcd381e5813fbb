/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device's size: asked for at the start, and again while requests are under way.
 *
 * Loops compare with direct_size to choose between the two descriptors; it only ever grows, by
 * whole sectors, and not once there is a tail: so whatever a loop has seen of it stays right.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "export/device.h"

#define EXPORT_SECTOR 512u              /* an export's size is a multiple of this */

/* Asks no server on the network, which might not answer. */
static int read_size(const struct device *dev, uint64_t *ret)
{
	struct statx stx;

	if (dev->is_block)
		return ioctl(dev->fd, BLKGETSIZE64, ret) < 0 ? -errno : 0;
	if (statx(dev->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &stx) < 0)
		return -errno;
	*ret = stx.stx_size;
	return 0;
}

static int reopen_for_tail(const struct device *dev, int fd)
{
	char self[32];

	(void) snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	return open(self, (dev->never_writes ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
}

int device_measure(struct device *dev, int path_fd, struct failure *why)
{
	int r = read_size(dev, &dev->size_seen);
	uint64_t size = dev->size_seen - dev->size_seen % EXPORT_SECTOR;

	if (r < 0)
		return fail(why, -r, "cannot ask %s for its size", dev->path);
	if (size == 0)
		return fail_plain(why, ENODATA, "%s is empty: an export has at least %u bytes",
		                  dev->path, EXPORT_SECTOR);
	if (size > INT64_MAX)
		return fail_plain(why, EFBIG, "%s is larger than 8 EiB", dev->path);
	dev->size = size;
	dev->direct_size = sector_down(dev, size);
	if (dev->direct_size == size)
		return 0;
	dev->tail_fd = reopen_for_tail(dev, path_fd);
	if (dev->tail_fd < 0)
		return fail(why, errno, "cannot open %s for its last, unaligned bytes", dev->path);
	return 0;
}

bool device_size_has_changed(struct device *dev, uint64_t *ret)
{
	uint64_t now;

	if (read_size(dev, &now) < 0 || now == dev->size_seen || now > INT64_MAX)
		return false;
	if (now == 0 && dev->is_block)          /* it is gone: device_vanished() */
		return false;
	dev->size_seen = now;
	*ret = now - now % EXPORT_SECTOR;
	return *ret != dev->size;
}

/* Where there is no tail yet and one is needed, but not to be had, the last sector stays out. */
static uint64_t grow(struct device *dev, uint64_t size)
{
	if (dev->tail_fd >= 0)
		return size;
	dev->direct_size = sector_down(dev, size);
	if (dev->direct_size == size)
		return size;
	dev->tail_fd = reopen_for_tail(dev, dev->fd);
	return dev->tail_fd < 0 ? dev->direct_size : size;
}

void device_resize(struct device *dev, uint64_t size)
{
	if (size > dev->direct_size)
		size = grow(dev, size);
	else
		size = sector_down(dev, size);
	/* An offer of nothing is none: an emptied file gives errors. */
	dev->size = size ? size : sector_up(dev, EXPORT_SECTOR);
}
