/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One export as list and show tell of it: what its file says, and, if it runs, what it says
 * itself; if not, what systemd says of its units.
 */
#pragma once

#include <stdbool.h>

#include "base/export-settings.h"
#include "ctl/places.h"
#include "ctl/running.h"

struct export_state {
	const struct export_settings *settings; /* borrowed */
	bool runs;                      /* `running` was read; else only .flush_failed is known */
	bool silent;                    /* it may run, but does not tell, or not us */
	struct running running;
	const char *word;               /* "serving", ...; "inactive", "failed" and the like
	                                 * otherwise */
	char *reason;                   /* a sentence, or NULL */
	bool has_size;
	uint64_t size;
};

void export_state_read(const struct places *p, const struct export_settings *s,
                       struct export_state *ret);
void export_state_clear(struct export_state *e);

/* The same of `n` exports, asked all at once, and beside them `also`, if not NULL: made for
 * inquire(), and the caller's to clear. */
int export_states_read(const struct places *p, const struct export_settings *s, size_t n,
                       struct inquiry *also, struct export_state **ret, struct failure *why);
void export_states_free(struct export_state *all, size_t n);
