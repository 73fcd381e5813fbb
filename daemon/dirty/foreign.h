/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What others have written since a store was left is a gap in every bitmap that records, and so is
 * what nobody can know.
 */
#pragma once

#include <stdbool.h>

#include "dirty/catalogue.h"

struct tracker;

/* Compares the trace in `draft` with the one of `now`, and says in the journal what it finds.
 * `unclean`: the last run did not leave; until its end it wrote itself, which the kernel has counted,
 * too, so that only what is counted anew since a start of the machine tells anything. */
void foreign_check(struct tracker *tracker, struct catalogue *draft, const struct device_trace *now,
                   bool unclean);
