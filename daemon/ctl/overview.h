/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every export that there is: those that good files describe, by label, and behind them what runs,
 * or can be started by a client, though its file is gone.
 */
#pragma once

#include <stddef.h>

#include "ctl/export-state.h"
#include "ctl/files.h"

struct overview {
	struct files files;
	struct export_state *states;
	size_t n;
	struct export_settings *settings;       /* of the states: borrowed from the files, but for */
	size_t n_strays;                        /* so many behind them */
};

/* `also` is asked beside them: export_states_read(). */
int overview_read(const struct places *p, struct inquiry *also, struct overview *ret,
                  struct failure *why);
void overview_clear(struct overview *o);
