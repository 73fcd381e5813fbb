/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The exports that we know, by the names clients use.
 *
 * Read once from exports.d, before the sandbox closes the file system.  Owns the entries and
 * each entry's link to its export; a size or a flag is never kept here, only what LIST tells.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/failure.h"

struct export_link;

struct catalogue_entry {
	char *label;
	char *name;
	char *description;              /* "" for none */
	struct export_link *link;       /* NULL until server_open() */
};

struct catalogue {
	struct catalogue_entry *entries;
	size_t n;
	struct catalogue_entry *nameless;       /* answers to the empty name; NULL for none */
};

/* Reads every LABEL.conf of `dir`.  Bad files are logged and skipped; an error only when the
 * folder cannot be read. */
int catalogue_read(const char *dir, struct catalogue *ret, struct failure *why);
void catalogue_clear(struct catalogue *c);

/* The export of that name, or NULL. */
struct catalogue_entry *catalogue_find(const struct catalogue *c, struct span name);
