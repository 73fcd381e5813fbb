/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The receiving end of sd_notify(3): one datagram socket for all children, whose senders
 * the kernel vouches for.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/failure.h"

/* The socket at `path`, non-blocking; the caller's. */
int notify_listen(const char *path, int *ret_fd, struct failure *why);

/* Takes messages until one says READY=1; its sender.  False when none is left. */
bool notify_receive(int fd, pid_t *ret_sender);
