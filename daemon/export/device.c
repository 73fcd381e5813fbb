/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/device-identity.h"
#include "base/log.h"
#include "export/queue.h"

/* Linux's page cache miscounts SEEK_DATA in the last page below 2^63 and finds nothing there. */
#define SEEK_TRUSTED ((uint64_t) INT64_MAX - (2u << 20))

/* How long a device may be in use before that is an error, and how often it is tried. */
#define BUSY_USEC (1 * USEC_PER_SEC)
#define BUSY_PAUSE_USEC 20000

/* Opens what `path_fd` (O_PATH) names once more, with the flags that I/O needs. */
static int reopen(int path_fd, int flags)
{
	char self[32];

	(void) snprintf(self, sizeof self, "/proc/self/fd/%d", path_fd);
	return open(self, flags | O_CLOEXEC | O_NOCTTY);
}

static int check_kind(const char *path, const struct stat *st, struct failure *why)
{
	if (S_ISBLK(st->st_mode) || S_ISREG(st->st_mode))
		return 0;
	if (S_ISDIR(st->st_mode))
		return fail_plain(why, EISDIR, "%s is a directory; give a block device or a file", path);
	return fail_plain(why, ENOTBLK, "%s is neither a block device nor a regular file", path);
}

/* A block device that is held by somebody: the open was refused, the rest only finds words. */
static int fail_busy(const struct device *dev, const struct stat *st, struct failure *why)
{
	char user[160];

	queue_find_user(st->st_rdev, user, sizeof user);
	return fail_plain(why, EBUSY, "%s is in use%s%s; %s", dev->path, *user ? ": " : "", user,
	                  dev->never_writes ? "Shared=yes (--shared) exports it all the same, read-only"
	                                 : "it cannot be exported for writing");
}

static int fail_open(const struct device *dev, const struct stat *st, int code, struct failure *why)
{
	if (code == EBUSY && S_ISBLK(st->st_mode))
		return fail_busy(dev, st, why);
	if ((code == EROFS || code == EACCES || code == EPERM) && !dev->never_writes)
		return fail(why, code, "cannot open %s for writing (ReadOnly=yes or --read-only "
		            "exports it for reading)", dev->path);
	return fail(why, code, "cannot open %s", dev->path);
}

static bool is_tmpfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* After an open with O_DIRECT, errno still its own.  tmpfs takes the flag and ignores it; /dev
 * is a tmpfs too, but says nothing about the devices in it. */
static bool lacks_direct_io(const struct device *dev)
{
	return dev->fd < 0 ? errno == EINVAL : !dev->is_block && is_tmpfs(dev->fd);
}

/* With O_DIRECT if wished and possible. */
static int open_data(struct device *dev, int path_fd, const struct stat *st, bool shared,
                     struct failure *why)
{
	int flags = dev->never_writes ? O_RDONLY : O_RDWR;

	if (dev->is_block && !shared)
		flags |= O_EXCL;
	if (dev->direct)
		dev->fd = reopen(path_fd, flags | O_DIRECT);
	if (dev->direct && lacks_direct_io(dev)) {
		close_fd(&dev->fd);
		dev->direct = false;
		log_event(EVENT_DIRECT_UNAVAILABLE, NULL, "%s: its file system has no direct I/O; reads "
		          "and writes go through the page cache (FLUSH and FUA still reach the file)",
		          dev->path);
	}
	if (!dev->direct)
		dev->fd = reopen(path_fd, flags);
	return dev->fd < 0 ? fail_open(dev, st, errno, why) : 0;
}

static int look_at_block_device(struct device *dev, struct failure *why)
{
	int logical, read_only;

	if (ioctl(dev->fd, BLKSSZGET, &logical) < 0 || ioctl(dev->fd, BLKROGET, &read_only) < 0)
		return fail(why, errno, "cannot ask %s for its sectors", dev->path);
	dev->sector = dev->direct ? (uint32_t) logical : 1;
	dev->read_only_seen = read_only;
	if (read_only && !dev->never_writes) {
		log_event(EVENT_DEVICE_READ_ONLY, NULL, "%s: the device is read-only, and so is the "
		          "export", dev->path);
		dev->never_writes = true;       /* bitmaps, too, have to know from the start */
	}
	return 0;
}

/* Before statx(2) told (Linux 6.1): the smallest aligned read that works. */
static uint32_t probe_alignment(int fd)
{
	static const uint32_t candidates[] = { 512, 1024, 2048, 4096 };
	void *buf;
	uint32_t found = 4096;

	if (posix_memalign(&buf, 65536, 65536) != 0)
		return found;
	for (size_t i = 0; i < ARRAY_LEN(candidates); i++) {
		if (pread(fd, buf, candidates[i], candidates[i]) >= 0) {
			found = candidates[i];
			break;
		}
	}
	free(buf);
	return found;
}

static uint32_t file_alignment(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align >= 512 &&
	    stx.stx_dio_mem_align <= 4096)
		return stx.stx_dio_offset_align;
#endif
	return probe_alignment(fd);
}

/* Whether the driver can refuse to wait: io_uring then needs no thread for each request.  Files
 * of which nobody knows how long they take (FUSE, network) count as such. */
static bool takes_nowait(const struct device *dev)
{
	size_t size = dev->sector > 512 ? dev->sector : 512;
	struct iovec iov = { .iov_len = size };
	bool takes = true;

	if (posix_memalign(&iov.iov_base, 65536, size) != 0)
		return takes;
	if (preadv2(dev->fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP)
		takes = !dev->is_block && !is_tmpfs(dev->fd);
	free(iov.iov_base);
	return takes;
}

static int open_all(struct device *dev, const struct export_settings *s, struct failure *why)
{
	AUTO_FD path_fd = open(s->device, O_PATH | O_CLOEXEC);
	struct stat st;
	int r;

	if (path_fd < 0)
		return fail(why, errno, "cannot open %s", s->device);
	if (fstat(path_fd, &st) < 0)
		return fail(why, errno, "cannot look at %s", s->device);
	r = check_kind(s->device, &st, why);
	if (r < 0)
		return r;
	dev->is_block = S_ISBLK(st.st_mode);
	if (s->shared && !s->read_only)
		return fail_plain(why, EINVAL, "Shared=yes goes with ReadOnly=yes only (%s)", s->device);

	r = open_data(dev, path_fd, &st, s->shared, why);
	if (r < 0)
		return r;
	if (dev->is_block) {
		r = look_at_block_device(dev, why);
		if (r == 0)
			r = queue_read_limits(dev, st.st_rdev, why);
	} else {
		dev->sector = dev->direct ? file_alignment(dev->fd) : 1;
		dev->physical_block = (uint32_t) st.st_blksize;
		dev->write_cache = true;
		dev->can_discard = true;
		r = device_identity_of_file(dev->fd, dev->identity);
		if (r < 0)
			return fail(why, -r, "cannot look at %s", s->device);
		r = device_lock(dev->fd, dev->path, !dev->never_writes, s->shared, why);
	}
	if (r == 0)
		r = device_measure(dev, path_fd, why);
	if (r < 0)
		return r;
	dev->read_only = dev->never_writes;
	dev->nowait = takes_nowait(dev);
	return 0;
}

static int try_open(struct device *dev, const struct export_settings *settings,
                    struct failure *why)
{
	int r;

	*dev = (struct device) {
		.fd = -1, .tail_fd = -1,
		.never_writes = settings->read_only, .direct = settings->direct,
	};
	dev->path = strdup(settings->device);
	if (!dev->path)
		return fail(why, ENOMEM, "cannot open %s", settings->device);
	r = open_all(dev, settings, why);
	if (r < 0)
		device_close(dev);
	return r;
}

/* An export that was killed holds its device until the kernel has taken its ring down, which may be
 * after its process has gone and we were started in its place. */
int device_open(struct device *dev, const struct export_settings *settings, struct failure *why)
{
	const struct timespec pause = { .tv_nsec = BUSY_PAUSE_USEC * 1000 };
	uint64_t until = monotonic_us() + BUSY_USEC;
	int r;

	while ((r = try_open(dev, settings, why)) == -EBUSY && monotonic_us() < until) {
		*why = (struct failure) { 0 };
		(void) nanosleep(&pause, NULL);
	}
	return r;
}

void device_close(struct device *dev)
{
	close_fd(&dev->fd);
	close_fd(&dev->tail_fd);
	free_pointer(&dev->path);
}

/* A disk that was taken away has no bytes left, whatever its driver answers to a request. */
bool device_vanished(const struct device *dev, int error)
{
	uint64_t size;

	if (error == ENXIO || error == ENODEV)
		return true;
	if (!dev->is_block)
		return false;
	return ioctl(dev->fd, BLKGETSIZE64, &size) < 0 || size == 0;
}

bool device_read_only_has_changed(struct device *dev)
{
	int now;

	if (!dev->is_block || ioctl(dev->fd, BLKROGET, &now) < 0 || (now != 0) == dev->read_only_seen)
		return false;
	dev->read_only_seen = now != 0;
	dev->read_only = dev->never_writes || now;
	return true;
}

bool device_was_replaced(const struct device *dev)
{
	uint64_t now = dev->is_block ? queue_disk_sequence(dev->fd) : 0;

	return now && dev->sequence && now != dev->sequence;
}

/*
 * No data from `offset` on: a hole to the end of the file.  Behind a file that has
 * become shorter there is nothing, which is not a hole: the read shall fail.
 */
static uint64_t last_hole(int fd, uint64_t offset, uint64_t end, bool *ret_hole)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || (uint64_t) st.st_size <= offset)
		return end;
	*ret_hole = true;
	if (end > SEEK_TRUSTED)
		end = SEEK_TRUSTED;
	return (uint64_t) st.st_size < end ? (uint64_t) st.st_size : end;
}

uint64_t device_extent(int fd, uint64_t offset, uint64_t end, bool *ret_hole)
{
	off_t data, hole;

	*ret_hole = false;
	if (offset >= SEEK_TRUSTED)
		return end;
	data = lseek(fd, (off_t) offset, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? last_hole(fd, offset, end, ret_hole) : end;
	if ((uint64_t) data > offset) {
		*ret_hole = true;
		return (uint64_t) data < end ? (uint64_t) data : end;
	}
	hole = lseek(fd, (off_t) offset, SEEK_HOLE);
	if (hole < 0 || (uint64_t) hole <= offset || (uint64_t) hole > end)
		return end;
	return (uint64_t) hole;
}

/* Behind a hole there is data: one look, where device_extent() takes two. */
uint64_t device_extent_after_hole(int fd, uint64_t offset, uint64_t end, bool *ret_hole)
{
	off_t hole = offset < SEEK_TRUSTED ? lseek(fd, (off_t) offset, SEEK_HOLE) : -1;

	if (hole < 0 || (uint64_t) hole <= offset)
		return device_extent(fd, offset, end, ret_hole);
	*ret_hole = false;
	return (uint64_t) hole < end ? (uint64_t) hole : end;
}

uint64_t device_read_extent(const struct device *dev, struct known_data *known, uint64_t offset,
                            uint64_t end, bool *ret_hole)
{
	uint64_t stop, far = dev->size;         /* which may have shrunk below what is read */
	unsigned n_punched = dev->n_punched;

	*ret_hole = false;
	if (dev->is_block)
		return end;
	if (known->n_punched == n_punched && offset >= known->start && offset < known->end)
		return known->end < end ? known->end : end;

	/* Look further than asked: the next reads are likely to be near. */
	stop = device_extent(dev->fd, offset, far > end ? far : end, ret_hole);
	if (!*ret_hole)
		*known = (struct known_data) { offset, stop, n_punched };
	return stop < end ? stop : end;
}

void device_note_punch(struct device *dev)
{
	dev->n_punched++;
}
