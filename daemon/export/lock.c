/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on regular files, on the bytes that QEMU's file driver uses: byte 100 + n is locked by
 * whoever has permission n, byte 200 + n by whoever does not let others have it.  All locks
 * are shared ones; a conflict is found by asking for the opposite byte.  So we and QEMU,
 * and two of us, keep out of each other's way.
 */
#include "export/device.h"

#include <errno.h>
#include <fcntl.h>

enum permission { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3 };

#define HAS_PERMISSION 100
#define SHARES_NOT 200

struct lock_byte {
	int base;
	enum permission permission;
};

static int lock_byte(int fd, struct lock_byte b)
{
	struct flock lock = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = b.base + (int) b.permission, .l_len = 1,
	};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Whether anybody else holds the byte that says the opposite of `b`. */
static int ask_opposite(int fd, struct lock_byte b)
{
	int base = b.base == HAS_PERMISSION ? SHARES_NOT : HAS_PERMISSION;
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + (int) b.permission, .l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type == F_UNLCK ? 0 : -EBUSY;
}

int device_lock(int fd, const char *path, bool writes, bool shared, struct failure *why)
{
	struct lock_byte bytes[4];
	size_t n = 0;
	int r;

	bytes[n++] = (struct lock_byte) { HAS_PERMISSION, CONSISTENT_READ };
	if (writes)
		bytes[n++] = (struct lock_byte) { HAS_PERMISSION, WRITE };
	if (!shared) {
		bytes[n++] = (struct lock_byte) { SHARES_NOT, WRITE };
		bytes[n++] = (struct lock_byte) { SHARES_NOT, RESIZE };
	}

	for (size_t i = 0; i < n; i++) {
		r = lock_byte(fd, bytes[i]);
		if (r == -EAGAIN || r == -EACCES)
			r = -EBUSY;
		if (r < 0)
			return fail(why, -r, "cannot lock %s", path);
	}
	for (size_t i = 0; i < n; i++) {
		r = ask_opposite(fd, bytes[i]);
		if (r == -EBUSY)
			return fail_plain(why, EBUSY, "%s is in use: another program (a QEMU, or another "
			                  "export) has it locked%s", path,
			                  writes ? "" : " for writing");
		if (r < 0)
			return fail(why, -r, "cannot ask for locks on %s", path);
	}
	return 0;
}
