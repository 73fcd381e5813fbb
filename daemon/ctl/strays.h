/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is left of exports whose files are gone: units that systemd still has, and folders.  A
 * file that was removed by hand leaves such, and so does a removal that failed half-way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"
#include "ctl/places.h"

struct stray {
	char *label;
	bool has_unit;                  /* that is not inactive; else there is only a folder */
};

/* Each label once; strays_free().  The caller has the folder locked. */
int strays_read(const struct places *p, struct stray **ret, size_t *ret_n, struct failure *why);
void strays_free(struct stray *strays, size_t n);

/* As much as can be told, to be looked at: without the lock, and without systemd what there is else.
 * What is being added or removed just now may be among them. */
void strays_look(const struct places *p, struct stray **ret, size_t *ret_n);

/* Whether something is left of this one. */
bool stray_exists(const struct places *p, const char *label);

/* Removes what a unit keeps over restarts in its runtime folder.  Only what is known is removed,
 * and no note of a failed flush: that is the device's. */
void stray_clear(const struct places *p, const char *label);
