/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options that describe one export or enter it: INFO, GO and EXPORT_NAME.
 *
 * What a client is told before it enters is what the reservation pinned; INFO, which reserves
 * nothing, works it out from the offer.
 */
#include "negotiator/dispatch.h"

#include "negotiator/access.h"

static uint32_t at_least(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static uint32_t at_most(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Contexts that were set for another export do not follow the client into this one. */
static void drop_foreign_contexts(struct negotiation *n, const struct catalogue_entry *entry)
{
	if (n->chosen.export != entry)
		forget_contexts(n);
}

/* A context that went away since it was selected: the client would wait for it in vain, or, where
 * the export was started again and its number is another's now, be told about that one. */
static bool contexts_still_offered(const struct negotiation *n)
{
	const struct chosen_contexts *chosen = &n->chosen;

	for (size_t i = 0; i < chosen->n; i++)
		if (!offer_same_context(n->now.offer, chosen->offer, chosen->ids[i]))
			return false;
	return true;
}

/* Before a client enters: NEXT_OPTION when everything is there, else what is missing. */
static enum next await_grant(struct negotiation *n, const struct catalogue_entry *entry)
{
	n->now.export = entry;
	if (!n->now.offer)
		return NEXT_OFFER;
	if (!contexts_still_offered(n)) {
		forget_contexts(n);
		n->now.refusal = (struct refusal) {
			.reason = REASON_OFFER_STALE,
			.sentence = "the metadata contexts of the export have changed since they "
			            "were selected",
		};
		return NEXT_OPTION;
	}
	return n->now.is_granted ? NEXT_OPTION : NEXT_RESERVE;
}

static uint16_t flags_of_offer(const struct negotiation *n)
{
	uint32_t flags = n->now.offer->terms.flags;

	if (n->mode >= NBD_MODE_STRUCTURED)
		flags |= NBD_FLAG_SEND_DF;
	if (n->mode == NBD_MODE_EXTENDED)
		flags |= NBD_FLAG_BLOCK_STAT_PAYLOAD;
	if (!(option_access(n, n->now.export).rights & ACCESS_WRITE)) {
		flags |= NBD_FLAG_READ_ONLY;
		flags &= ~(uint32_t) (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
		                      NBD_FLAG_SEND_FAST_ZERO);
	}
	return (uint16_t) flags;
}

/* proto.md: a client that did not ask for block sizes may assume a minimum of 1, so the true
 * one is told only to a client that will obey it, or that is just looking. */
static void emit_block_size(struct negotiation *n, const struct opt_go *go)
{
	const struct channel_offer *terms = &n->now.offer->terms;
	bool truly = n->header.option == NBD_OPT_INFO || go->wants_block_size;
	uint32_t minimum = truly ? terms->minimum_block : 1;
	uint32_t preferred = at_least(terms->preferred_block, at_least(4096, minimum));
	uint32_t maximum = at_most(terms->maximum_payload, NBD_MAX_PAYLOAD);

	emit_info_block_size(&n->out, n->header.option, minimum, preferred, maximum);
}

static void emit_infos(struct negotiation *n, const struct opt_go *go, uint64_t size,
                       uint16_t flags)
{
	const struct catalogue_entry *entry = n->now.export;

	if (go->wants_name)
		emit_info_name(&n->out, n->header.option, span_of(entry->name));
	if (*entry->description)
		emit_info_description(&n->out, n->header.option, span_of(entry->description));
	emit_block_size(n, go);
	emit_info_export(&n->out, n->header.option, size, flags);
}

/* Reads the payload of both options.  False: the client has been refused. */
static bool read_go(struct negotiation *n, struct bytes payload, struct opt_go *ret_go,
                    const struct catalogue_entry **ret_entry)
{
	enum nbd_rep rep = decode_go(payload, ret_go);

	if (rep != NBD_REP_ACK) {
		(void) option_refuse(n, rep, "lengths that do not match, or a name above %u "
		                     "bytes or with a NUL", NBD_MAX_STRING);
		return false;
	}
	*ret_entry = option_find_export(n, ret_go->export_name);
	if (!*ret_entry)
		(void) option_refuse_unknown(n, ret_go->export_name);
	return *ret_entry;
}

enum next on_info(struct negotiation *n, struct bytes payload)
{
	const struct catalogue_entry *entry;
	struct opt_go go;

	if (!read_go(n, payload, &go, &entry))
		return NEXT_OPTION;

	n->now.export = entry;
	if (n->now.refusal.reason)
		return option_refuse_for_export(n);
	if (!n->now.offer)
		return NEXT_OFFER;

	emit_infos(n, &go, n->now.offer->terms.size, flags_of_offer(n));
	if (n->now.offer->terms.minimum_block > 1 && !go.wants_block_size)
		return option_refuse(n, NBD_REP_ERR_BLOCK_SIZE_REQD,
		                     "ask for NBD_INFO_BLOCK_SIZE to use this export");
	return option_ack(n);
}

enum next on_go(struct negotiation *n, struct bytes payload)
{
	const struct catalogue_entry *entry;
	struct opt_go go;
	enum next next;

	if (!read_go(n, payload, &go, &entry))
		return NEXT_OPTION;

	drop_foreign_contexts(n, entry);
	next = n->now.refusal.reason ? NEXT_OPTION : await_grant(n, entry);
	if (next != NEXT_OPTION)
		return next;
	if (n->now.refusal.reason)
		return option_refuse_for_export(n);

	emit_infos(n, &go, n->now.granted.size, n->now.granted.flags);
	(void) option_ack(n);
	return NEXT_HANDOFF;
}

enum next on_export_name(struct negotiation *n, struct bytes payload)
{
	const struct catalogue_entry *entry;
	struct span name;
	enum next next;

	if (decode_export_name(payload, &name) != NBD_REP_ACK)
		return option_close(n, "NBD_OPT_EXPORT_NAME with a name that cannot be one");
	entry = option_find_export(n, name);
	if (!entry)
		return option_refuse_unknown(n, name);

	drop_foreign_contexts(n, entry);
	next = n->now.refusal.reason ? NEXT_OPTION : await_grant(n, entry);
	if (next != NEXT_OPTION)
		return next;
	if (n->now.refusal.reason)
		return option_refuse_for_export(n);

	emit_export_name_reply(&n->out, n->now.granted.size, n->now.granted.flags,
	                       n->flags.no_zeroes);
	return NEXT_HANDOFF;
}
