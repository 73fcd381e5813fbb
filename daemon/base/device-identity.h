/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is, whatever path leads to it: one that was replaced or attached again has another
 * disk sequence number, a file that was made anew another time of birth.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/failure.h"

#define DEVICE_IDENTITY_SIZE 96u

/* `sequence`: of the disk (BLKGETDISKSEQ), 0 where the kernel does not count. */
void device_identity_of_block(dev_t rdev, uint64_t sequence, char ret[static DEVICE_IDENTITY_SIZE]);

/* A file that is open. */
int device_identity_of_file(int fd, char ret[static DEVICE_IDENTITY_SIZE]);

/* The same, without opening it for I/O.  -ENOENT and the like: it is not there. */
int device_identity_of_path(const char *path, char ret[static DEVICE_IDENTITY_SIZE],
                            struct failure *why);
