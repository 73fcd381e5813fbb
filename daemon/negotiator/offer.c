/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Offers: built from records, shared by reference. */
#include "negotiator/offer.h"

#include <assert.h>
#include <stdlib.h>

struct offer *offer_new(const struct channel_offer *terms)
{
	struct offer *offer = calloc(1, sizeof *offer);

	if (!offer)
		return NULL;
	offer->n_refs = 1;
	offer->terms = *terms;
	return offer;
}

struct offer *offer_ref(struct offer *offer)
{
	offer->n_refs++;
	return offer;
}

void offer_unref(struct offer *offer)
{
	if (!offer)
		return;
	assert(offer->n_refs > 0);
	if (--offer->n_refs)
		return;
	for (size_t i = 0; i < offer->n_contexts; i++)
		free((void *) offer->contexts[i].name.at);
	free(offer);
}

const char *offer_add_context(struct offer *offer, const struct channel_context *context)
{
	uint8_t *name;

	if (offer_complete(offer) || offer->n_contexts == NBD_MAX_CONTEXTS)
		return "more contexts than the offer counted";
	if (offer_has_context(offer, context->id))
		return "a context identifier comes twice";
	if (context->name.len == 0)
		return "a context without a name";

	name = malloc(context->name.len);
	if (!name)
		return "no memory for the name of a context";
	memcpy(name, context->name.at, context->name.len);
	offer->contexts[offer->n_contexts++] = (struct offered_context) {
		.id = context->id,
		.name = { .at = name, .len = context->name.len },
	};
	return NULL;
}

static const struct offered_context *find_context(const struct offer *offer, uint32_t id)
{
	for (size_t i = 0; i < offer->n_contexts; i++)
		if (offer->contexts[i].id == id)
			return &offer->contexts[i];
	return NULL;
}

bool offer_has_context(const struct offer *offer, uint32_t id)
{
	return find_context(offer, id);
}

bool offer_same_context(const struct offer *a, const struct offer *b, uint32_t id)
{
	const struct offered_context *one = find_context(a, id), *other = find_context(b, id);

	return one && other && span_equal(one->name, other->name);
}
