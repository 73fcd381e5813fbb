/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * `path` from the root, for programs with another working folder and for URIs; the
 * caller's to free.  Symbolic links stay: they may be meant to move.  NULL with errno.
 */
char *absolute_path(const char *path);
