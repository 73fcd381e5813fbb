/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/lasting-identity.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#define TEXT_MAX 512u

/* FNV-1a, for texts that are too long: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t digest(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		hash = (hash ^ (unsigned char) *text) * UINT64_C(0x100000001b3);
	return hash;
}

/* The file's first line, without blanks at its ends; "" when there is none. */
static void read_line(const char *folder, const char *name, char ret[static TEXT_MAX])
{
	char path[256];
	FILE *file;
	char *start;

	ret[0] = '\0';
	(void) snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "re");
	if (!file)
		return;
	if (!fgets(ret, TEXT_MAX, file))
		ret[0] = '\0';
	(void) fclose(file);
	ret[strcspn(ret, "\n")] = '\0';
	start = ret + strspn(ret, " ");
	memmove(ret, start, strlen(start) + 1);
	for (size_t n = strlen(ret); n > 0 && ret[n - 1] == ' '; n--)
		ret[n - 1] = '\0';
}

/* What a whole disk says of itself, the surest first. */
static bool read_disk(const char *folder, char ret[static TEXT_MAX])
{
	static const char *const names[] = { "dm/uuid", "md/uuid", "wwid", "device/wwid", "serial",
	                                     "device/serial" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		read_line(folder, names[i], ret);
		if (ret[0])
			return true;
	}
	return false;
}

/* A file system's own number, which lasts, unlike the device that it is mounted from, and the file's
 * birth: another file may have the same inode and name some day, but not these, too. */
static bool describe_file(const char *path, int fd, uint64_t inode, char *ret, size_t size)
{
	struct statx stx = { 0 };
	struct statfs fs;
	uint64_t id;

	if (statx(fd, path, fd == AT_FDCWD ? 0 : AT_EMPTY_PATH, STATX_BTIME | STATX_INO, &stx) < 0 ||
	    stx.stx_ino != inode || (fd == AT_FDCWD ? statfs(path, &fs) : fstatfs(fd, &fs)) < 0)
		return false;
	memcpy(&id, &fs.f_fsid, sizeof id);
	(void) snprintf(ret, size, "%" PRIx64 "-%" PRIu64 "-%" PRId64 ".%u", id, inode,
	                (int64_t) stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec);
	return true;
}

/* In the sandbox of a unit the file may be out of sight: then by number and name alone. */
static bool read_loop(const struct device *dev, const char *folder, char ret[static TEXT_MAX])
{
	char path[TEXT_MAX], loop[96], file[96] = "";
	struct loop_info64 info;

	if (ioctl(dev->fd, LOOP_GET_STATUS64, &info) < 0)
		return false;
	(void) snprintf(loop, sizeof loop, "%s/loop", folder);
	read_line(loop, "backing_file", path);
	if (path[0])
		(void) describe_file(path, AT_FDCWD, info.lo_inode, file, sizeof file);
	(void) snprintf(ret, TEXT_MAX, "loop-%" PRIu64 "-%" PRIu64 "-%s-%.*s", (uint64_t) info.lo_inode,
	                (uint64_t) info.lo_offset, file, (int) sizeof info.lo_file_name,
	                (const char *) info.lo_file_name);
	return true;
}

static bool read_block(const struct device *dev, const struct stat *st, char ret[static TEXT_MAX])
{
	char folder[64], disk[80], number[TEXT_MAX], start[TEXT_MAX];

	(void) snprintf(folder, sizeof folder, "/sys/dev/block/%u:%u", major(st->st_rdev),
	                minor(st->st_rdev));
	read_line(folder, "partition", number);
	if (!number[0])
		return read_disk(folder, ret) || read_loop(dev, folder, ret);
	(void) snprintf(disk, sizeof disk, "%s/..", folder);
	read_line(folder, "start", start);
	if (!read_disk(disk, ret))
		return false;
	(void) snprintf(ret + strlen(ret), TEXT_MAX - strlen(ret), ",%.20s,%.20s", number, start);
	return true;
}

static bool read_file(const struct device *dev, const struct stat *st, char ret[static TEXT_MAX])
{
	(void) snprintf(ret, TEXT_MAX, "file-");
	return describe_file("", dev->fd, st->st_ino, ret + 5, TEXT_MAX - 5);
}

void lasting_identity(const struct device *dev, char ret[static LASTING_IDENTITY_SIZE])
{
	char text[TEXT_MAX];
	struct stat st;
	bool found = fstat(dev->fd, &st) == 0 &&
	             (dev->is_block ? read_block(dev, &st, text) : read_file(dev, &st, text));

	if (!found)
		(void) snprintf(text, sizeof text, "%s", dev->identity);
	if (strlen(text) < LASTING_IDENTITY_SIZE)
		(void) snprintf(ret, LASTING_IDENTITY_SIZE, "%.95s", text);
	else
		(void) snprintf(ret, LASTING_IDENTITY_SIZE, "%.70s-%016" PRIx64, text, digest(text));
}
