/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file that keeps the bitmaps of an export that does not run. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/failure.h"
#include "ctl/places.h"

/* Where it is: from the export's file, or, when that is bad, where it usually is. */
int bitmap_file_of(const struct places *p, const char *label, char ret[PATH_MAX],
                   struct failure *why);

/* Whether there is one. */
bool bitmap_file_is_there(const char *path);

int bitmap_file_remove(const char *path, const char *label, struct failure *why);

/* Removes the export's own folder for it, if that is empty. */
void bitmap_folder_remove(const char *label);
