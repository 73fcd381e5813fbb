/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file that keeps the bitmaps of an export that does not run. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/failure.h"
#include "ctl/places.h"

struct bitmap_file {
	char path[PATH_MAX];
	bool elsewhere;                 /* than where it usually is: BitmapStore= says so */
	bool guessed;                   /* the export's file, which may say so, cannot be read */
};

/* Where it is: from the export's file, or, when that is bad, where it usually is. */
int bitmap_file_of(const struct places *p, const char *label, struct bitmap_file *ret,
                   struct failure *why);

/* Whether there is one. */
bool bitmap_file_is_there(const char *path);

int bitmap_file_remove(const char *path, const char *label, struct failure *why);

/* Removes the export's own folder for it, if that is empty. */
void bitmap_folder_remove(const char *label);
