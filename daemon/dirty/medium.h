/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a store lies on: a file, or in the tests a disk that loses power.
 *
 * A medium keeps what was written before a sync() that succeeded.  Of what was written since, a
 * power cut keeps any 512-byte sectors and loses the others.  One thread uses it at a time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"

struct medium;

/* All return 0 or a negative errno. */
struct medium_ops {
	/* Beyond the end it reads zeroes. */
	int (*read)(struct medium *medium, uint64_t at, void *data, size_t length);
	int (*write)(struct medium *medium, uint64_t at, const void *data, size_t length);
	int (*sync)(struct medium *medium);
	/* Makes sure that writing there needs no more space; contents stay. */
	int (*allocate)(struct medium *medium, uint64_t at, uint64_t length);
	/* Reads as zeroes afterwards, and takes no space where that can be had. */
	int (*clear)(struct medium *medium, uint64_t at, uint64_t length);
	/* The first byte from `at` on that may not be zero; UINT64_MAX when there is none.
	 * May be missing: then everything is read. */
	int (*next_data)(struct medium *medium, uint64_t at, uint64_t *ret);
};

struct medium {
	const struct medium_ops *ops;
};

struct file_medium {
	struct medium medium;
	int fd;
};

/* Takes over `fd`, open for reading and writing. */
void file_medium_init(struct file_medium *file, int fd);
void file_medium_close(struct file_medium *file);
