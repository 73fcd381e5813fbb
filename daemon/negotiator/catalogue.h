/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The exports that we know, by the names clients use, and who may use which.
 *
 * A catalogue never changes: reading the files again makes a new one, which takes the links to
 * the exports over from the old one, and both live on as long as somebody refers to them.  A
 * size or a flag is never kept here, only what LIST tells.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/access.h"
#include "base/bytes.h"
#include "base/failure.h"

struct export_link;

struct catalogue_entry {
	char *label;
	char *name;
	char *description;              /* "" for none */
	char *allow;                    /* its own Allow=; "" for none */
	bool is_default;                /* Default=yes */
	uint32_t max_per_source;        /* MaxConnectionsPerSource= */
	struct access_list rules;       /* that hold for it */
	const char *rules_text;         /* the same as written, and */
	const char *rules_from;         /* in which file, for people */
	struct export_link *link;       /* a reference; NULL until server_link() */
};

struct catalogue {
	unsigned n_refs;
	struct catalogue_entry *entries;        /* by label */
	size_t n;
	size_t n_bad;                   /* files that were skipped, or whose export was kept */
	struct catalogue_entry *nameless;       /* answers to the empty name; NULL for none */
	char *allow;                    /* Allow= of the negotiator's file; "" for none */
};

/*
 * Reads every LABEL.conf of `dir`; `allow` holds for those without their own.  A bad file is
 * logged, and what `previous` (NULL at the start) knows about its export stays.  An error only
 * when the folder cannot be read; at the start one that is not there is an empty one.
 */
int catalogue_read(const char *dir, const char *allow, const struct catalogue *previous,
                   struct catalogue **ret, struct failure *why);
struct catalogue *catalogue_ref(struct catalogue *c);
void catalogue_unref(struct catalogue *c);

/* The export of that name or label, or NULL. */
struct catalogue_entry *catalogue_find(const struct catalogue *c, struct span name);
struct catalogue_entry *catalogue_find_label(const struct catalogue *c, const char *label);
