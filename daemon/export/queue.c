/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/queue.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/device-identity.h"

#define ATTRIBUTE_SIZE 128u

/* One attribute of the device, or of the whole disk when it is a partition. */
static bool read_attribute(dev_t rdev, const char *name, char *ret)
{
	static const char *const places[] = { "", "../" };
	bool found = false;

	for (size_t i = 0; !found && i < ARRAY_LEN(places); i++) {
		char path[256];
		FILE *f;

		(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s%s", major(rdev),
		                minor(rdev), places[i], name);
		f = fopen(path, "re");
		if (!f)
			continue;
		found = fgets(ret, ATTRIBUTE_SIZE, f) != NULL;
		fclose(f);
	}
	if (found)
		ret[strcspn(ret, "\n")] = '\0';
	return found;
}

static uint64_t read_number(dev_t rdev, const char *name)
{
	char text[ATTRIBUTE_SIZE];

	return read_attribute(rdev, name, text) ? strtoull(text, NULL, 10) : 0;
}

uint64_t queue_disk_sequence(int fd)
{
	uint64_t sequence = 0;

#ifdef BLKGETDISKSEQ
	(void) ioctl(fd, BLKGETDISKSEQ, &sequence);
#else
	(void) fd;
#endif
	return sequence;
}

int queue_read_limits(struct device *dev, dev_t rdev, struct failure *why)
{
	char text[ATTRIBUTE_SIZE];

	if (read_attribute(rdev, "queue/zoned", text) && strcmp(text, "none") != 0)
		return fail_plain(why, ENOTSUP, "%s is a zoned device (%s): NBD has no commands for "
		                  "zones, so it cannot be exported", dev->path, text);

	dev->physical_block = (uint32_t) read_number(rdev, "queue/physical_block_size");
	dev->optimal_io = (uint32_t) read_number(rdev, "queue/optimal_io_size");
	dev->discard_max = read_number(rdev, "queue/discard_max_bytes");
	dev->can_discard = dev->discard_max > 0;
	dev->rotational = read_number(rdev, "queue/rotational") == 1;
	dev->write_cache = !read_attribute(rdev, "queue/write_cache", text) ||
	                   strcmp(text, "write through") != 0;
	dev->sequence = queue_disk_sequence(dev->fd);
	device_identity_of_block(rdev, dev->sequence ? dev->sequence : read_number(rdev, "diskseq"),
	                         dev->identity);
	return 0;
}

/* mountinfo(5): the third field is the device, the fifth the mount point. */
static bool find_mount(dev_t rdev, char *ret, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (f && !found && getline(&line, &room, f) > 0) {
		unsigned ma, mi;
		char where[128];

		found = sscanf(line, "%*d %*d %u:%u %*s %127s", &ma, &mi, where) == 3 &&
		        makedev(ma, mi) == rdev;
		if (found)
			(void) snprintf(ret, size, "mounted at %s", where);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

static bool find_holder(dev_t rdev, char *ret, size_t size)
{
	char path[128];
	struct dirent *entry;
	DIR *dir;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/holders", major(rdev), minor(rdev));
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && entry->d_name[0] == '.')
		;
	if (dir && entry)
		(void) snprintf(ret, size, "held by %.64s", entry->d_name);
	if (dir)
		closedir(dir);
	return *ret != '\0';
}

/* A mount of one of the disk's partitions keeps the whole disk. */
static bool find_partition_mount(dev_t rdev, char *ret, size_t size)
{
	char path[128], number[ATTRIBUTE_SIZE];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(rdev), minor(rdev));
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		char attribute[sizeof entry->d_name + 8];
		unsigned ma, mi;

		(void) snprintf(attribute, sizeof attribute, "%s/dev", entry->d_name);
		found = entry->d_name[0] != '.' && read_attribute(rdev, attribute, number) &&
		        sscanf(number, "%u:%u", &ma, &mi) == 2 &&
		        find_mount(makedev(ma, mi), ret, size);
	}
	if (dir)
		closedir(dir);
	return found;
}

void queue_find_user(dev_t rdev, char *ret, size_t size)
{
	*ret = '\0';
	if (!find_mount(rdev, ret, size) && !find_partition_mount(rdev, ret, size))
		(void) find_holder(rdev, ret, size);
}
