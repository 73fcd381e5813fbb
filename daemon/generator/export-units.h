/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What systemd has to know about one export beyond the template units: which device or
 * file it lives on, and whether it starts with the machine.
 *
 * A path beneath /dev is a device; anything else is taken for a file.  The path is not looked
 * at: the generator runs before most file systems are mounted, and one that hangs must not
 * keep the machine from starting.
 */
#pragma once

#include <stdbool.h>

#include "base/export-settings.h"

/* `devices`: whether this system has units for devices; containers have none. */
int export_units_write(int dir, const struct export_settings *s, bool devices,
                       struct failure *why);
