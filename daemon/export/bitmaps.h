/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export's dirty bitmaps: opened by its settings, for its device.
 */
#pragma once

#include "base/failure.h"

struct export;

/* Opens export->tracker; the loops do not run yet.  export_deinit() closes it. */
int bitmaps_open(struct export *export, struct failure *why);

/* What an administrator should know of them, in a sentence: "" if all is well. */
#define BITMAPS_PROBLEM_SIZE 512u
void bitmaps_problem(const struct export *export, char ret[static BITMAPS_PROBLEM_SIZE]);
