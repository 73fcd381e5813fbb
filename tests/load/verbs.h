/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What nbd-load can do; each returns the exit status. */
#pragma once

#include "settings.h"

int run_load(const struct settings *settings);
int run_connect(const struct settings *settings);
int run_idle(const struct settings *settings);
int run_status(const struct settings *settings);
int run_null(const struct settings *settings);
