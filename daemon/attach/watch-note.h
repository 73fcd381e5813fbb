/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What nbd-attach lays down about the device that it watches, for `nbdctl attached` to read: one
 * small file for each device, of which it holds the lock as long as it lives, so that nobody
 * believes what a killed one has left.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"

#define WATCH_SENTENCE_MAX FAILURE_TEXT_SIZE

struct watch_note {
	uint32_t live;                          /* connections */
	char sentence[WATCH_SENTENCE_MAX];      /* why there are fewer than wished; "" */
};

/* False where nobody watches. */
bool watch_note_read(int index, struct watch_note *ret);

/* Becomes who watches the device; the descriptor is for the next two.  -EBUSY: another does. */
int watch_note_open(int index, int *ret_fd, struct failure *why);
void watch_note_write(int fd, const struct watch_note *note);

/* Removes and closes. */
void watch_note_close(int index, int *fd);
