/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remembers that a flush failed, for as long as the machine is up.
 *
 * A file in the state directory (under /run), named after the device's identity, so that it
 * outlives the process and does not outlive the device: one that was replaced or attached again has
 * another disk sequence number.  Removing the file while the export is stopped clears it.
 */
#pragma once

#include <stdbool.h>

#include "base/failure.h"

struct latch {
	char *path;
	_Atomic bool set;               /* by any ring */
};

/* Finds out whether the device's last flush failed.  A directory that is missing is made. */
int latch_open(struct latch *latch, const char *state_dir, const char *identity,
               struct failure *why);
void latch_close(struct latch *latch);

/* Sets it, with the reason for people; logs once, and again if it cannot be written. */
void latch_set(struct latch *latch, const char *reason);
