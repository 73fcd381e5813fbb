/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal of one export: its units' entries, what systemd says of them, and what the
 * negotiator says of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"

#define JOURNAL_ALL UINT64_MAX

/*
 * Prints the last `lines` entries on stdout, as journalctl does; with `follow` those that
 * come, until interrupted.  `folder`: NULL for this system's journal.
 */
int journal_print(const char *label, const char *folder, uint64_t lines, bool follow,
                  struct failure *why);
