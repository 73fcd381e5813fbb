/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether somebody else has changed a device while nobody looked: by the kernel's own counters.
 *
 * They begin anew with each boot and with each device that is made, so that after either they
 * must be at zero.  What goes past this kernel (another host on shared storage) is not seen.
 */
#pragma once

#include <stdint.h>

#include "dirty/catalogue.h"

/* As the device is now.  Where that cannot be told, ret->known is false. */
void trace_take(int fd, struct device_trace *ret);

/* The same once what others have left in the page cache is on the device, where it is counted.  Else
 * a negative errno, which the kernel tells nobody again who syncs by `fd`. */
int trace_take_synced(int fd, struct device_trace *ret);

/* How much has changed from `then` to `now`, in sectors of 512 bytes; UINT64_MAX: something has, or
 * cannot be ruled out; 0: nothing. */
uint64_t trace_compare(const struct device_trace *then, const struct device_trace *now);
