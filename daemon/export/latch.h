/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remembers that a flush failed, for as long as the machine is up.
 *
 * A file in the state directory (under /run), named after the device's identity, so that it
 * outlives the process and does not outlive the device: one that was replaced or attached again has
 * another disk sequence number.  Clearing it, as removing the file while the export is stopped, is
 * for an administrator who knows what became of the data.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/failure.h"

#define LATCH_REASON_SIZE 256u

struct latch {
	char *path;
	_Atomic bool set;               /* by any ring */
	pthread_mutex_t lock;
	char reason[LATCH_REASON_SIZE]; /* under the lock: what is in the file */
};

/* Finds out whether the device's last flush failed.  A directory that is missing is made. */
int latch_open(struct latch *latch, const char *state_dir, const char *identity,
               struct failure *why);
void latch_close(struct latch *latch);

/* Sets it, with the reason for people; logs once, and again if it cannot be written. */
void latch_set(struct latch *latch, const char *reason);

/* Why it is set: "" if it is not. */
void latch_reason(struct latch *latch, char ret[static LATCH_REASON_SIZE]);

/* Forgets it, here and for later starts.  It stays set when the file cannot be removed. */
int latch_clear(struct latch *latch, struct failure *why);
