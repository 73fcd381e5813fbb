/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a flush that failed is remembered until the machine starts anew: one folder for all
 * exports, of units and of `nbdctl serve`, and in it a note for each device.  So it does not
 * matter under which label or by whom the device is exported next.
 *
 *   /run/nbd-export/flush-failed        root's
 *   $XDG_RUNTIME_DIR/nbd-export         of any other user; where that is not set,
 *   /tmp/nbd-export-UID
 *
 * NBD_EXPORT_FLUSH_FAILED names another one.  A unit writes into a folder of its own in there,
 * named after its label, and cannot write into those of others: whoever takes one export over
 * cannot make another forget.  A note counts wherever it lies.
 *
 * Who looks into it may be root, and who owns it may be not: a file is nothing but text here.
 */
#pragma once

#include <limits.h>
#include <stddef.h>

#include "base/failure.h"

#define LATCH_REASON_SIZE 256u

struct latch_place {
	char all[PATH_MAX];             /* the folder for all exports */
	char own[PATH_MAX];             /* where notes of ours are made: the same, or one in it */
};

/* `label`: of the export that makes notes; NULL for who only looks.  Nothing is made. */
void latch_place_find(const char *label, struct latch_place *ret);

/* FOLDER/flush-failed-IDENTITY; -ENAMETOOLONG */
int latch_file_path(const char *folder, const char *identity, char ret[static PATH_MAX]);

/* A note in the folder for all exports or in one of those in it.  -ENOENT: there is none, no flush
 * has failed. */
int latch_file_find(const char *all, const char *identity, char ret[static PATH_MAX]);

/* Removes all notes of the device, or says which one cannot be removed. */
int latch_file_remove(const char *all, const char *identity, struct failure *why);

/* The reason, one line that can be printed, and of any file something.  -ENOENT: there is no such
 * note. */
int latch_file_read(const char *path, char ret[static LATCH_REASON_SIZE]);
