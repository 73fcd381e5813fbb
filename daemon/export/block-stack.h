/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What block devices are made of, as sysfs tells: partitions of disks, dm and md of other devices,
 * loops of files.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#define BLOCK_STACK_SYS "/sys"

/* What is looked for below a device. */
struct block_stack {
	const char *sys;                /* BLOCK_STACK_SYS, but for tests */
	dev_t device;                   /* this one, or 0 */
	const struct stat *file;        /* or a loop over this file; NULL: none */
	bool through_files;             /* a loop stands on what its file lies on */
};

/* Whether `top` is what is looked for, or is made of it. */
bool block_stack_reaches(const struct block_stack *wanted, dev_t top);
