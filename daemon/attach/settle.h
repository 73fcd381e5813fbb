/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waits for a device to be what it will be: with its size, and known to udev, which makes the
 * links in /dev/disk and lets systemd see the device's unit.  By udev's events, never by looking
 * again and again.
 */
#pragma once

#include <stdint.h>

#include "base/failure.h"

struct settle;

/* Listens from now on: before the device changes. */
int settle_start(struct settle **ret, struct failure *why);
void settle_stop(struct settle *s);

/* Until nbd`index` has `size` and udev has worked off that change, which it does at once where no
 * udev runs.  -ETIMEDOUT and a sentence after `patience` microseconds. */
int settle_wait(struct settle *s, int index, uint64_t size, uint64_t patience,
                struct failure *why);

/* Until nbd`index` is gone from who can use it, whether udev knows that or not. */
int settle_wait_gone(struct settle *s, int index, uint64_t patience, struct failure *why);
