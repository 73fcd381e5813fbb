/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts one program as a service manager would: sockets by LISTEN_FDS from
 * descriptor 3 on, a NOTIFY_SOCKET, no other descriptor of ours, signals at their defaults,
 * a process group of its own, and SIGTERM when we die.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/failure.h"

struct spawn_plan {
	const char *program;            /* a path */
	char *const *argv;              /* ends with NULL */
	const char *notify_socket;      /* a path, for NOTIFY_SOCKET */
	const int *fds;                 /* sockets to pass; they stay the caller's */
	size_t n_fds;
	const char *instance;           /* its part of our STATE_DIRECTORY, if we have one; or NULL */
	const char *fd_names;           /* LISTEN_FDNAMES, "channel" or "client:client" */
};

/*
 * Returns when the program has been executed, or with a sentence that says what
 * could not be done; no process is left then.
 */
int spawn(const struct spawn_plan *plan, pid_t *ret_pid, struct failure *why);
