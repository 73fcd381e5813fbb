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
#include "base/identity.h"
#include "base/negotiator-settings.h"

struct export_link;

struct catalogue_entry {
	char *label;
	char *name;
	char *description;              /* "" for none */
	char *allow;                    /* its own Allow=; "" for none */
	char *identity;                 /* its own Identity=; "" for none */
	enum tls_policy own_tls;        /* its own TLS= */
	bool is_default;                /* Default=yes */
	uint32_t max_per_source;        /* MaxConnectionsPerSource= */
	struct access_list rules;       /* that hold for it */
	const char *rules_text;         /* the same as written, and */
	const char *rules_from;         /* in which file, for people */
	enum tls_policy tls;            /* that holds for it; never TLS_POLICY_UNSET */
	struct identity_list identities;        /* that hold for it; empty: nobody is asked */
	const char *identities_from;    /* in which file, for people */
	struct export_link *link;       /* a reference; NULL until server_link() */
};

struct catalogue {
	unsigned n_refs;
	struct catalogue_entry *entries;        /* by label */
	size_t n;
	size_t n_bad;                   /* files that were skipped, or whose export was kept */
	struct catalogue_entry *nameless;       /* answers to the empty name; NULL for none */
	char *allow;                    /* of the negotiator's file: Allow=, "" for none, */
	char *identity;                 /* Identity=, "" for none, */
	enum tls_policy tls;            /* and TLS= */
	bool has_tls;                   /* some export, or all, can be used by TLS */
};

/*
 * Reads every LABEL.conf of `dir`; rules and policy of `all` hold for those without their own.
 * A bad file is logged, and what `previous` (NULL at the start) knows about its export stays.  An error only
 * when the folder cannot be read; at the start one that is not there is an empty one.
 */
int catalogue_read(const char *dir, const struct negotiator_settings *all,
                   const struct catalogue *previous, struct catalogue **ret, struct failure *why);
struct catalogue *catalogue_ref(struct catalogue *c);
void catalogue_unref(struct catalogue *c);

/* The export of that name or label, or NULL. */
struct catalogue_entry *catalogue_find(const struct catalogue *c, struct span name);
struct catalogue_entry *catalogue_find_label(const struct catalogue *c, const char *label);
