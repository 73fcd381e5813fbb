/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/device-identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/attr.h"

void device_identity_of_block(dev_t rdev, uint64_t sequence, char ret[static DEVICE_IDENTITY_SIZE])
{
	(void) snprintf(ret, DEVICE_IDENTITY_SIZE, "block-%u:%u-%" PRIu64, major(rdev), minor(rdev),
	                sequence);
}

int device_identity_of_file(int fd, char ret[static DEVICE_IDENTITY_SIZE])
{
	struct statx stx = { 0 };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	(void) statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx);
	(void) snprintf(ret, DEVICE_IDENTITY_SIZE, "file-%" PRIx64 "-%" PRIu64 "-%" PRId64 ".%u",
	                (uint64_t) st.st_dev, (uint64_t) st.st_ino, (int64_t) stx.stx_btime.tv_sec,
	                stx.stx_btime.tv_nsec);
	return 0;
}

/* Of the disk, for a partition too. */
static uint64_t read_sequence(dev_t rdev)
{
	static const char *const places[] = { "", "../" };
	uint64_t sequence = 0;
	bool found = false;

	for (size_t i = 0; !found && i < ARRAY_LEN(places); i++) {
		char path[64];
		FILE *f;

		(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%sdiskseq", major(rdev),
		                minor(rdev), places[i]);
		f = fopen(path, "re");
		found = f && fscanf(f, "%" SCNu64, &sequence) == 1;
		if (f)
			(void) fclose(f);
	}
	return found ? sequence : 0;
}

int device_identity_of_path(const char *path, char ret[static DEVICE_IDENTITY_SIZE],
                            struct failure *why)
{
	AUTO_FD fd = open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(why, errno, "cannot look at %s", path);
	if (S_ISBLK(st.st_mode)) {
		device_identity_of_block(st.st_rdev, read_sequence(st.st_rdev), ret);
		return 0;
	}
	if (device_identity_of_file(fd, ret) < 0)
		return fail(why, errno, "cannot look at %s", path);
	return 0;
}
