/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares with what was, and with sysfs. */
#include "attach/relied.h"

#include <errno.h>
#include <string.h>

#include "attach/device.h"
#include "base/attr.h"
#include "wire/nbd.h"

#define SECTOR 512u

static const struct {
	uint16_t flag;
	const char *lost;
	bool writes;                    /* nothing to a device that cannot be written */
} needed[] = {
	{ NBD_FLAG_SEND_FLUSH, "flushes no more" },
	{ NBD_FLAG_SEND_FUA, "has no FUA any more" },
	{ NBD_FLAG_SEND_TRIM, "trims no more", true },
	{ NBD_FLAG_SEND_WRITE_ZEROES, "writes no zeroes any more", true },
	{ NBD_FLAG_CAN_MULTI_CONN, "no longer promises that several connections see the same data" },
};

uint16_t relied_flags_of(const char *sys, int index, uint32_t connections)
{
	struct nbd_queue queue = nbd_queue_read(sys, index);
	uint16_t flags = NBD_FLAG_HAS_FLAGS;

	if (queue.read_only)
		flags |= NBD_FLAG_READ_ONLY;
	if (queue.flushes)
		flags |= NBD_FLAG_SEND_FLUSH;
	if (queue.fua)
		flags |= NBD_FLAG_SEND_FUA;
	if (queue.discards)
		flags |= NBD_FLAG_SEND_TRIM;
	if (queue.writes_zeroes)
		flags |= NBD_FLAG_SEND_WRITE_ZEROES;
	if (connections > 1)            /* it would have one, else */
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	return flags;
}

static int check_flags(const struct relied *relied, uint16_t now, bool read_only,
                       struct failure *why)
{
	/* First: such exports trim no more either. */
	if (now & ~relied->flags & NBD_FLAG_READ_ONLY && !read_only)
		return fail_plain(why, EROFS, "the export has become read-only");
	for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
		if (needed[i].flag == NBD_FLAG_CAN_MULTI_CONN && relied->connections < 2)
			continue;
		if (needed[i].writes && read_only)
			continue;
		if (relied->flags & ~now & needed[i].flag)
			return fail_plain(why, EIO, "the server can less than before: it %s (flags "
			                  "%#x, now %#x)", needed[i].lost, relied->flags, now);
	}
	return 0;
}

static int check_requests(const struct nbd_queue *queue, const struct export_facts *now,
                          struct failure *why)
{
	if (queue->block_size && now->minimum > queue->block_size)
		return fail_plain(why, EIO, "the server takes no requests below %u bytes any more, "
		                  "and the device's blocks are %u", now->minimum,
		                  queue->block_size);
	if (now->maximum && now->maximum < queue->maximum)
		return fail_plain(why, EIO, "the server takes no more than %u bytes at once any "
		                  "more, and the device's requests have up to %llu", now->maximum,
		                  (unsigned long long) queue->maximum);
	return 0;
}

int relied_check(const struct relied *relied, const char *sys, int index,
                 const struct export_facts *now, struct failure *why)
{
	const struct nbd_queue queue = nbd_queue_read(sys, index);
	uint64_t size = now->size / SECTOR * SECTOR;
	int r;

	if (size < relied->size)
		return fail_plain(why, EIO, "the export has shrunk from %llu to %llu bytes",
		                  (unsigned long long) relied->size, (unsigned long long) size);
	r = check_flags(relied, now->flags, queue.read_only, why);
	return r < 0 ? r : check_requests(&queue, now, why);
}
