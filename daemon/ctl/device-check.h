/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a device can be served, asked of the program that would serve it.
 */
#pragma once

#include <stdbool.h>

#include "base/export-settings.h"
#include "base/failure.h"

/*
 * Runs `nbd-export LABEL --check` on these settings, in a private folder, as the user that
 * exports run as if `as_service` and we may.  Its sentence, which names who holds the device,
 * becomes the failure's.
 */
int device_check(const struct export_settings *s, bool as_service, struct failure *why);

/* What a unit cannot be bound to: a block device by a path outside of /dev, a file beneath it.
 * The sentence names the path to use. */
int device_path_check(const char *device, struct failure *why);
