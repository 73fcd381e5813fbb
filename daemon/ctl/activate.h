/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes what runs follow the files: systemd's units, the negotiator, a running export.
 */
#pragma once

#include <stdbool.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "ctl/catalogue.h"
#include "ctl/places.h"

/*
 * An export's file is there, new or changed: its socket starts, a running export and the
 * negotiator read again.  The failure says what is left to do by hand.  Where the folder is
 * not that of systemd's units, only the negotiator hears of it, if it runs.
 */
int activate(const struct places *p, const struct export_settings *s, struct failure *why);

/* The same for all good files.  One that cannot be started is logged; the rest go on. */
int activate_all(const struct places *p, const struct files *files, struct failure *why);

/* An export's file is gone: stops what is of it.  `label` runs no longer afterwards. */
int deactivate(const struct places *p, const char *label, struct failure *why);
