/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The metadata contexts of an export: the fixed ones, and one for each bitmap.
 *
 * The main thread's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dirty/catalogue.h"
#include "wire/nbd.h"

struct export;

struct context {
	uint32_t id;
	char name[sizeof NBD_CONTEXT_DIRTY_BITMAP + BITMAP_NAME_MAX];
};

struct context_list {
	uint16_t n;
	struct context contexts[NBD_MAX_CONTEXTS];
};

/* What there is now; with zeroes behind it, so that two lists can be compared as bytes. */
void contexts_list(const struct export *export, struct context_list *ret);

/* "base:allocation" and so on; words in brackets for a bitmap that is not there any more. */
const char *context_name(const struct context_list *list, uint32_t id);

/* A client selects a context, or lets go of it, once for each time that this said true.  False:
 * it is not there, or about to change. */
bool context_is_bitmap(uint32_t id);

bool context_use(const struct export *export, uint32_t id);
void context_unuse(const struct export *export, uint32_t id);

/* For struct tracker_settings.changed, with an export: calls export->on_bitmaps_changed() in the
 * main thread, soon.  Any thread. */
void contexts_changed(void *export);
