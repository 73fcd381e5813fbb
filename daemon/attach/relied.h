/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel has set a device up for, and a server that came back must still have: the kernel
 * asks nobody again after a device was connected.
 */
#pragma once

#include <stdint.h>

#include "base/failure.h"
#include "wire/answer.h"

struct relied {
	uint64_t size;                  /* the device's */
	uint16_t flags;                 /* of the server, as far as they are known */
	uint32_t connections;
};

/* The flags that follow from the queue of a device that somebody else has connected; `sys` is as in
 * device.h. */
uint16_t relied_flags_of(const char *sys, int index, uint32_t connections);

/* -EIO or -EROFS and a sentence where the kernel cannot go on with what the server now has.  The
 * sizes of requests are what the device's queue is set to. */
int relied_check(const struct relied *relied, const char *sys, int index,
                 const struct export_facts *now, struct failure *why);
