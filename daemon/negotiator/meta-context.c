/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LIST_META_CONTEXT and SET_META_CONTEXT.
 *
 * 32 MiB may hold millions of queries, so they are matched in slices with the event loop in
 * between: one client's list costs the others nothing.
 */
#include "negotiator/dispatch.h"

#define QUERIES_PER_SLICE 4096u

void forget_contexts(struct negotiation *n)
{
	offer_unref(n->chosen.offer);
	n->chosen = (struct chosen_contexts) { 0 };
}

static void match(struct negotiation *n, struct span query, bool listing)
{
	const struct offer *offer = n->now.offer;

	for (size_t i = 0; i < offer->n_contexts; i++)
		if (query_matches(query, offer->contexts[i].name, listing))
			n->now.wanted |= UINT64_C(1) << i;
}

/* True when every query has been looked at. */
static bool match_some(struct negotiation *n, bool listing)
{
	struct span query;

	for (unsigned i = 0; i < QUERIES_PER_SLICE; i++) {
		if (!next_query(&n->now.meta, &query))
			return true;
		match(n, query, listing);
	}
	return false;
}

/* Decodes the payload once, however often the handler is called. */
static enum nbd_rep decode_once(struct negotiation *n, struct bytes payload, bool listing)
{
	enum nbd_rep rep;

	if (n->now.is_decoded)
		return NBD_REP_ACK;
	rep = decode_meta_context(payload, &n->now.meta);
	if (rep != NBD_REP_ACK)
		return rep;
	n->now.is_decoded = true;
	if (listing && n->now.meta.n_queries == 0)
		n->now.wanted = UINT64_MAX;
	return NBD_REP_ACK;
}

static enum next tell_contexts(struct negotiation *n, bool listing)
{
	const struct offer *offer = n->now.offer;

	for (; n->now.cursor < offer->n_contexts; n->now.cursor++) {
		const struct offered_context *context = &offer->contexts[n->now.cursor];

		if (!(n->now.wanted >> n->now.cursor & 1))
			continue;
		if (!option_has_room(n))
			return NEXT_FLUSH;
		emit_rep_meta_context(&n->out, n->header.option, listing ? 0 : context->id,
		                      context->name);
		if (!listing)
			n->chosen.ids[n->chosen.n++] = context->id;
	}
	return option_has_room(n) ? option_ack(n) : NEXT_FLUSH;
}

static enum next on_meta_context(struct negotiation *n, struct bytes payload, bool listing)
{
	enum nbd_rep rep = decode_once(n, payload, listing);

	if (rep != NBD_REP_ACK)
		return option_refuse(n, rep, "lengths that do not match, or a name above %u "
		                     "bytes or with a NUL", NBD_MAX_STRING);
	if (!n->now.export)
		n->now.export = option_find_export(n, n->now.meta.export_name);
	if (!n->now.export)
		return option_refuse_unknown(n, n->now.meta.export_name);
	if (n->now.refusal.reason)
		return option_refuse_for_export(n);
	if (!n->now.offer)
		return NEXT_OFFER;

	if (!match_some(n, listing))
		return NEXT_FLUSH;
	if (!listing) {
		n->chosen.export = n->now.export;
		if (!n->chosen.offer)
			n->chosen.offer = offer_ref(n->now.offer);
	}
	return tell_contexts(n, listing);
}

enum next on_list_meta_context(struct negotiation *n, struct bytes payload)
{
	return on_meta_context(n, payload, true);
}

/* Once past the check of the mode, a SET that fails leaves nothing selected. */
enum next on_set_meta_context(struct negotiation *n, struct bytes payload)
{
	if (n->mode < NBD_MODE_STRUCTURED)
		return option_refuse(n, NBD_REP_ERR_INVALID,
		                     "NBD_OPT_SET_META_CONTEXT needs structured replies first");
	if (n->now.cursor == 0)
		forget_contexts(n);
	return on_meta_context(n, payload, false);
}
