/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What nbd-tls gives up before it reads a stranger's first byte.
 */
#pragma once

#include <stdbool.h>

#include "base/failure.h"

/* Before any key is read: no core dumps, and nobody may trace or read our memory. */
int sandbox_hide_memory(struct failure *why);

/* Privileges, capabilities and files.  What lies beneath `folders` can still be read, if the
 * kernel has Landlock: `ret_readable`.  Before threads are started, for they inherit it. */
int sandbox_enter(const char *const *folders, bool *ret_readable, struct failure *why);

/* System calls, of all threads: afterwards there are no new ones.  What goes on working is what
 * descriptors that we have can do, and unix sockets. */
int sandbox_filter(bool may_read, struct failure *why);

/* 0 when `path` cannot be opened because the sandbox forbids it, 1 when it can be, or when
 * the attempt failed for another reason. */
int sandbox_check(const char *path);
