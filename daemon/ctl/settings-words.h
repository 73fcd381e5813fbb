/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between two exports' settings, in words.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/export-settings.h"

/*
 * Whether they differ; "Device=/dev/a, not /dev/b; ReadOnly=yes, not no" tells how, as much as
 * fits.  `ret_restart`, if not NULL, gets the keys that a running export takes up only at its
 * next start, "Device=, Threads=", or "".
 */
bool settings_differ(const struct export_settings *now, const struct export_settings *before,
                     char *ret, size_t size, char *ret_restart, size_t restart_size);

/* "auto", "io_uring" or "threads". */
const char *engine_word(enum export_engine engine);
