/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

/* The columns of /sys/dev/block/MAJOR:MINOR/stat: the kernel's Documentation/block/stat.rst. */
static bool read_counters(dev_t dev, struct device_trace *ret)
{
	char path[80];
	uint64_t written, discarded = 0;
	FILE *file;
	int n;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(dev), minor(dev));
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fscanf(file, "%*u %*u %*u %*u %*u %*u %" SCNu64 " %*u %*u %*u %*u %*u %*u %" SCNu64,
	           &written, &discarded);
	(void) fclose(file);
	ret->sectors_written = written;
	ret->sectors_discarded = discarded;
	return n >= 1;
}

static bool read_number(const char *path, uint64_t *ret)
{
	FILE *file = fopen(path, "re");
	int n;

	if (!file)
		return false;
	n = fscanf(file, "%" SCNu64, ret);
	(void) fclose(file);
	return n == 1;
}

/* Of drivers with request queues, writes are counted only where an administrator lets them be. */
static bool counts(dev_t dev)
{
	static const char *const places[] = { "", "/.." };      /* a partition has its disk's */
	uint64_t iostats;
	char path[80];

	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u%s/mq", major(dev), minor(dev),
		                places[i]);
		if (access(path, F_OK) < 0)
			continue;
		(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u%s/queue/iostats", major(dev),
		                minor(dev), places[i]);
		return !read_number(path, &iostats) || iostats != 0;
	}
	return true;
}

/* A partition has its disk's number. */
static void read_disk_sequence(dev_t dev, struct device_trace *ret)
{
	char path[80];

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/diskseq", major(dev), minor(dev));
	if (read_number(path, &ret->disk_sequence))
		return;
	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../diskseq", major(dev), minor(dev));
	if (!read_number(path, &ret->disk_sequence))
		ret->disk_sequence = 0;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* In the sandbox of a unit the kernel cannot be asked, and systemd tells. */
static bool read_boot_id(sd_id128_t *ret)
{
	const char *given = getenv("NBD_EXPORT_BOOT_ID");

	return (given && sd_id128_from_string(given, ret) >= 0) || sd_id128_get_boot(ret) >= 0;
}

void trace_take(int fd, struct device_trace *ret)
{
	sd_id128_t boot;
	struct stat st;

	*ret = (struct device_trace) { 0 };
	if (fstat(fd, &st) < 0 || !read_boot_id(&boot))
		return;
	memcpy(ret->boot_id, boot.bytes, sizeof ret->boot_id);
	if (S_ISBLK(st.st_mode)) {
		ret->known = counts(st.st_rdev) && read_counters(st.st_rdev, ret);
		read_disk_sequence(st.st_rdev, ret);
	} else {
		const struct timespec *last = later(&st.st_mtim, &st.st_ctim) ? &st.st_mtim : &st.st_ctim;

		ret->known = true;
		ret->inode = st.st_ino;
		ret->changed_sec = last->tv_sec;
		ret->changed_nsec = (uint32_t) last->tv_nsec;
	}
}

int trace_take_synced(int fd, struct device_trace *ret)
{
	int error = fdatasync(fd) < 0 ? errno : 0;

	if (error == EINVAL || error == EROFS)  /* nothing to sync */
		error = 0;
	trace_take(fd, ret);
	ret->known = ret->known && !error;
	return -error;
}

static bool same_boot(const struct device_trace *then, const struct device_trace *now)
{
	return memcmp(then->boot_id, now->boot_id, sizeof then->boot_id) == 0;
}

bool trace_is_of_other_boot(const struct device_trace *then, const struct device_trace *now)
{
	return then->known && now->known && !then->inode && !now->inode && !same_boot(then, now);
}

const char *trace_doubt(const struct device_trace *then, const struct device_trace *now)
{
	if (trace_is_of_other_boot(then, now))
		return then->machine_stopped ? NULL :
		       "what others wrote after it was left, before the machine started anew, is not "
		       "known";
	if (then->known && now->known && !now->inode && then->disk_sequence != now->disk_sequence)
		return "what others wrote after it was left, before the device was made anew, is not "
		       "known";
	return NULL;
}

uint64_t trace_compare(const struct device_trace *then, const struct device_trace *now)
{
	struct device_trace base = *then;

	if (!then->known || !now->known || then->inode != now->inode)
		return UINT64_MAX;
	if (now->inode)
		return then->changed_sec == now->changed_sec && then->changed_nsec == now->changed_nsec ?
		       0 : UINT64_MAX;
	if (!same_boot(then, now) || then->disk_sequence != now->disk_sequence)
		base.sectors_written = base.sectors_discarded = 0;
	if (now->sectors_written < base.sectors_written ||
	    now->sectors_discarded < base.sectors_discarded)
		return UINT64_MAX;
	return now->sectors_written - base.sectors_written +
	       now->sectors_discarded - base.sectors_discarded;
}
