/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What sysfs says of the kernel's nbd devices.  `sys` is /sys/block but in tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attach/identity.h"

#define SYS_BLOCK "/sys/block"

struct nbd_state {
	int index;
	bool connected;
	bool read_only;
	uint64_t size;                          /* 0 while it is not connected */
	char backend[ATTACH_IDENTITY_MAX];      /* "" where the kernel has none */
	bool ours;                              /* `identity` is the backend, read */
	struct attach_identity identity;
};

/* False where there is no such device. */
bool nbd_state_read(const char *sys, int index, struct nbd_state *ret);

/* All that are connected, by number; the caller frees the list.  None where there is no driver. */
int nbd_state_list(const char *sys, struct nbd_state **ret, size_t *ret_n, struct failure *why);

/* "/dev/nbd3" to 3; also a link to it, as in /dev/disk. */
int nbd_index_of(const char *path, int *ret, struct failure *why);

/*
 * -EBUSY and a sentence when it is mounted, or claimed by another driver (dm, md, swap).  Who has it
 * open without a claim does not count.  Until *ret_fd is closed nobody else can claim it; -1 where
 * there is no such device.
 */
int nbd_claim(int index, int *ret_fd, struct failure *why);

/* How the block layer is set to use a device; zeroes where it is not known. */
struct nbd_queue {
	uint32_t block_size;
	uint64_t maximum;                       /* bytes of a READ or WRITE */
	bool read_only, flushes, fua, discards, writes_zeroes;
};

struct nbd_queue nbd_queue_read(const char *sys, int index);

/* Keeps requests within what a server takes at once; only ever makes them smaller. */
int nbd_limit_requests(const char *sys, int index, uint32_t maximum, struct failure *why);
