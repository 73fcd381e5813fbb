/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an export keeps of the file system once its device is open, where the kernel has
 * Landlock: its settings, its folders, what the kernel and the C library tell.  So an export
 * that was taken over cannot read what others export, though it runs as their user.
 */
#pragma once

#include "export/device.h"
#include "export/server.h"

/* For the calling thread and those that it makes, and for good. */
int sandbox_enter(const struct server_options *options, const struct export_settings *settings,
                  const struct device *device, struct failure *why);

/* For the tests: 0 when the sandbox keeps the file from being opened, 1 when not. */
int sandbox_check(const char *path);
