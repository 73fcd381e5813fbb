/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /sys and /proc tell about a block device: its queue's limits, and who uses it. */
#pragma once

#include <sys/types.h>

#include "export/device.h"

/* Fills the limits of `dev` from its request queue; refuses zoned devices. */
int queue_read_limits(struct device *dev, dev_t rdev, struct failure *why);

/* The disk sequence number of an open device; 0 where the kernel does not count.  A partition has
 * its disk's. */
uint64_t queue_disk_sequence(int fd);

/* Words for who holds a device: "mounted at /srv", "held by dm-3"; "" if nothing is found. */
void queue_find_user(dev_t rdev, char *ret, size_t size);
