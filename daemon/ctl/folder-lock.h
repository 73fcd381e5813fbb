/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One at a time changes the folder of the exports' files.
 *
 * The lock is a file that nobody else may open, or any user could keep administrators out: in
 * the runtime folder, RUNTIME/nbdctl.lock, for the exports of systemd's units; .lock in another
 * folder of exports.
 */
#pragma once

#include "base/failure.h"
#include "ctl/places.h"

/*
 * Locks the folder, which is made if it is not there, and removes what a writer that was killed
 * has left.  Says so on stderr when it has to wait for another nbdctl, and gives up after two
 * minutes (NBD_EXPORT_LOCK_PATIENCE=SECONDS, for tests).  Closing the descriptor unlocks.
 */
int folder_lock(const struct places *p, int *ret_fd, struct failure *why);

/* The same of another folder, which is there: FOLDER/.lock. */
int folder_lock_other(const char *folder, int *ret_fd, struct failure *why);
