/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/block-stack.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/attr.h"

#define DEEPEST 24u                     /* no stack is; a circle in sysfs ends here */

static bool reaches(const struct block_stack *wanted, dev_t top, unsigned depth);

/* The first line of a file; false when there is none. */
static bool read_line(int folder, const char *name, char *ret, size_t size)
{
	AUTO_FD fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, ret, size - 1);

	if (len <= 0)
		return false;
	ret[len] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

static bool read_number(int folder, dev_t *ret)
{
	unsigned major, minor;
	char text[32];

	if (!read_line(folder, "dev", text, sizeof text) ||
	    sscanf(text, "%u:%u", &major, &minor) != 2)
		return false;
	*ret = makedev(major, minor);
	return true;
}

static int open_folder(int at, const char *path)
{
	return openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* A partition's disk has the folder above it. */
static bool disk_reaches(const struct block_stack *wanted, int node, unsigned depth)
{
	AUTO_FD disk = -1;
	dev_t number;

	if (faccessat(node, "partition", F_OK, 0) < 0)
		return false;
	disk = open_folder(node, "..");
	return disk >= 0 && read_number(disk, &number) && reaches(wanted, number, depth);
}

static bool slaves_reach(const struct block_stack *wanted, int node, unsigned depth)
{
	int fd = open_folder(node, "slaves");
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool found = false;

	if (!dir) {
		close_fd(&fd);
		return false;
	}
	for (const struct dirent *entry; !found && (entry = readdir(dir));) {
		AUTO_FD slave = entry->d_name[0] == '.' ? -1 : open_folder(dirfd(dir), entry->d_name);
		dev_t number;

		found = slave >= 0 && read_number(slave, &number) && reaches(wanted, number, depth);
	}
	(void) closedir(dir);
	return found;
}

static bool loop_reaches(const struct block_stack *wanted, int node, unsigned depth)
{
	char path[PATH_MAX];
	struct stat st;

	if (!read_line(node, "loop/backing_file", path, sizeof path) || stat(path, &st) < 0)
		return false;
	if (S_ISBLK(st.st_mode))
		return reaches(wanted, st.st_rdev, depth);
	if (wanted->file && st.st_dev == wanted->file->st_dev && st.st_ino == wanted->file->st_ino)
		return true;
	return wanted->through_files && reaches(wanted, st.st_dev, depth);
}

static bool reaches(const struct block_stack *wanted, dev_t top, unsigned depth)
{
	char path[PATH_MAX];
	AUTO_FD node = -1;

	if (wanted->device && top == wanted->device)
		return true;
	if (depth == DEEPEST)
		return false;
	(void) snprintf(path, sizeof path, "%s/dev/block/%u:%u", wanted->sys, major(top), minor(top));
	node = open_folder(AT_FDCWD, path);
	if (node < 0)
		return false;
	return disk_reaches(wanted, node, depth + 1) || slaves_reach(wanted, node, depth + 1) ||
	       loop_reaches(wanted, node, depth + 1);
}

bool block_stack_reaches(const struct block_stack *wanted, dev_t top)
{
	return reaches(wanted, top, 0);
}
