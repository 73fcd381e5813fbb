/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the negotiator gives up before it reads a stranger's first byte.
 */
#pragma once

#include <stdbool.h>

#include "base/failure.h"

/*
 * For good: no new privileges, no capabilities, no core dumps or tracing, no file opened by
 * name (seccomp, and Landlock where the kernel has it), no socket but unix ones.  Fails when
 * one of the descriptors that are open refers to a block device or a folder.
 *
 * What lies beneath `folders` (NULL, or paths with a NULL behind the last) can still be opened
 * to be read, if the kernel has Landlock, which keeps everything else closed: `ret_readable`.
 *
 * Call once everything that needs the file system has been done.  What goes on working is
 * accepting, connecting to unix sockets by path, and the event loop.
 */
int sandbox_enter(const char *const *folders, bool *ret_readable, struct failure *why);

/* 0 when `path` cannot be opened because the sandbox forbids it, 1 when it can be, or when
 * the attempt failed for another reason. */
int sandbox_check(const char *path);
