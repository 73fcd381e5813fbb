/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is called for longer than this boot.
 *
 * struct device.identity is of one attachment: after a restart of the machine the same disk has another.
 * This is of what holds the data: a dm or md array's UUID, a disk's WWID or serial number, a loop's
 * file, with a partition's place on it; a file's inode.  What has none of these is a new device
 * with each attachment.
 */
#pragma once

#include "export/device.h"

#define LASTING_IDENTITY_SIZE 96u

void lasting_identity(const struct device *dev, char ret[static LASTING_IDENTITY_SIZE]);
