/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the generator writes: drop-ins and links to wish for units, beneath one folder, which
 * systemd empties before each run.
 */
#pragma once

#include "base/failure.h"

/* UNIT.d/50-device.conf with `text`. */
int output_drop_in(int dir, const char *unit, const char *text, struct failure *why);

/* WISHER.wants/UNIT: when `wisher` starts, so does `unit`, an instance of `template`. */
int output_want(int dir, const char *wisher, const char *unit, const char *template,
                struct failure *why);
