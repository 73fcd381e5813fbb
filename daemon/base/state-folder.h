/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where an export keeps what outlives restarts of the machine. */
#pragma once

#include <stddef.h>

/*
 * /var/lib/nbd-export/LABEL of root and of systemd's units; of other users
 * $XDG_STATE_HOME/nbd-export/LABEL, or the same in ~/.local/state.  Not whether it is there.
 * -ENAMETOOLONG, or -ENOENT when no variable says where home is.
 */
int state_folder(const char *label, char *ret, size_t size);
