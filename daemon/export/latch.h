/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remembers that a flush failed, for as long as the machine is up.
 *
 * A file named after the device's identity (base/latch-file.h), so that it outlives the process,
 * and the export's label, and does not outlive the device.  Clearing it, as removing the file
 * while the export is stopped, is for an administrator who knows what became of the data.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/device-identity.h"
#include "base/failure.h"
#include "base/latch-file.h"

struct latch {
	char *all;                      /* the folder with the notes of all exports */
	char *path;                     /* of the note that is ours to make */
	char identity[DEVICE_IDENTITY_SIZE];
	_Atomic bool set;               /* by any ring */
	pthread_mutex_t lock;
	char reason[LATCH_REASON_SIZE]; /* under the lock: what is in the file */
};

/* Finds out whether the device's last flush failed.  The folder is made if it is missing.  `label`
 * is the export's; a note that another export made becomes ours, too. */
int latch_open(struct latch *latch, const char *label, const char *identity,
               struct failure *why);
void latch_close(struct latch *latch);

/* Sets it, with the reason for people; logs once, and again if it cannot be written. */
void latch_set(struct latch *latch, const char *reason);

/* Why it is set: "" if it is not. */
void latch_reason(struct latch *latch, char ret[static LATCH_REASON_SIZE]);

/* Forgets it, here and for later starts.  It stays set when our note cannot be removed; one of
 * another export that we may not remove is named in the log. */
int latch_clear(struct latch *latch, struct failure *why);
