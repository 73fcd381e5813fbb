/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an export offered over its channel: size, flags, block sizes and contexts.
 *
 * An offer is built record by record, and never changed once it is complete; who looks at it
 * for longer than one call holds a reference, so that a newer offer may arrive meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "wire/channel.h"

struct offered_context {
	uint32_t id;
	struct span name;               /* in memory of the offer */
};

struct offer {
	unsigned n_refs;
	struct channel_offer terms;
	size_t n_contexts;              /* so far; terms.n_contexts when complete */
	struct offered_context contexts[NBD_MAX_CONTEXTS];
};

/* NULL when memory is short. */
struct offer *offer_new(const struct channel_offer *terms);
struct offer *offer_ref(struct offer *offer);
void offer_unref(struct offer *offer);

/* NULL, or what is wrong with the context in words. */
const char *offer_add_context(struct offer *offer, const struct channel_context *context);

static inline bool offer_complete(const struct offer *offer)
{
	return offer->n_contexts == offer->terms.n_contexts;
}

bool offer_has_context(const struct offer *offer, uint32_t id);

/* Whether both have the context, under the same name. */
bool offer_same_context(const struct offer *a, const struct offer *b, uint32_t id);
