/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether somebody else has changed a device while nobody looked: by the kernel's own counters.
 *
 * They begin anew with each boot and with each device that is made.  What they had counted by then
 * is gone, unless we were there until the machine stopped.  What goes past this kernel (another host
 * on shared storage) is not seen.
 */
#pragma once

#include <stdint.h>

#include "dirty/catalogue.h"

/* As the device is now.  Where that cannot be told, ret->known is false. */
void trace_take(int fd, struct device_trace *ret);

/* The same once what others have left in the page cache is on the device, where it is counted.  Else
 * a negative errno, which the kernel tells nobody again who syncs by `fd`. */
int trace_take_synced(int fd, struct device_trace *ret);

/* Whether the machine has started anew since `then`, so that nothing of what the device's counters
 * count now is from before.  Of a file, which has times instead: false. */
bool trace_is_of_other_boot(const struct device_trace *then, const struct device_trace *now);

/* Why it cannot be told what others did after `then`, as a sentence; NULL: it can. */
const char *trace_doubt(const struct device_trace *then, const struct device_trace *now);

/* How much has changed from `then` to `now`, in sectors of 512 bytes; UINT64_MAX: something has, or
 * cannot be ruled out; 0: nothing. */
uint64_t trace_compare(const struct device_trace *then, const struct device_trace *now);
