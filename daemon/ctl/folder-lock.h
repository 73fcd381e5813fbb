/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One at a time changes the folder of the exports' files.
 */
#pragma once

#include "base/failure.h"

/*
 * Locks the folder, which is made if it is not there; says so on stderr when it has to wait
 * for another nbdctl.  Closing the descriptor unlocks.
 */
int folder_lock(const char *folder, int *ret_fd, struct failure *why);
