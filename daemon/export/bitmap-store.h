/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the file is that keeps an export's bitmaps, and where it must not be.
 */
#pragma once

#include <limits.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "export/device.h"

/*
 * BitmapStore=, or "bitmaps" in the export's state folder: $STATE_DIRECTORY, or of root
 * /var/lib/nbd-export/LABEL, or of others $XDG_STATE_HOME/nbd-export/LABEL.  That folder is made
 * when the settings name a bitmap.
 */
int bitmap_store_path(const struct export_settings *settings, char ret[PATH_MAX],
                      struct failure *why);

/* Makes the folder that the store is to be in, mode 0700, with those above it; not that of
 * BitmapStore=, whose file system may just not be mounted. */
int bitmap_store_make_folder(const struct export_settings *settings, const char *path,
                             struct failure *why);

/* -EINVAL and a sentence when the store lies on the exported device itself, or the device on it,
 * through partitions, dm, md or loops.  The store need not be there yet. */
int bitmap_store_refuse_own_stack(const char *store_path, const struct device *device,
                                  struct failure *why);
