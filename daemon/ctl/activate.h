/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes what runs follow the files: systemd's units, the negotiator, a running export.
 */
#pragma once

#include <stdbool.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "ctl/files.h"
#include "ctl/places.h"

/*
 * An export's file is there, new or changed: its socket starts, a running export and the
 * negotiator read again.  The failure says what is left to do by hand.  Where the folder is
 * not that of systemd's units, only the negotiator hears of it, if it runs.  `anew`: a running one
 * is stopped first.
 */
int activate(const struct places *p, const struct export_settings *s, bool anew,
             struct failure *why);

/* The same for all good files, but a service that was stopped is not started anew.  One that
 * cannot be started is logged; the rest go on. */
int activate_all(const struct places *p, const struct files *files, struct failure *why);

/* An export's file is gone: stops what is of it.  `label` runs no longer afterwards.  `for_good`:
 * what an administrator has set for its units goes, too. */
int deactivate(const struct places *p, const char *label, bool for_good, struct failure *why);
