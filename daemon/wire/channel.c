/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channel's records, one row each: how it is read, what must hold, how it is written.
 *
 * A reader takes its fields in order and judges nothing; whether the lengths agree is asked
 * once for all records, and only then are the values checked.  Descriptors are not bytes,
 * and are checked by whoever received them.
 */
#include "wire/channel.h"

#include <assert.h>

#include "base/attr.h"
#include "wire/record-frame.h"
#include "wire/record-text.h"

#define OFFER_FLAGS                                                           \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |  \
	 NBD_FLAG_ROTATIONAL | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |              \
	 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO)
#define GRANTED_FLAGS (OFFER_FLAGS | NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STAT_PAYLOAD)
#define ALL_RIGHTS (CHANNEL_RIGHT_READ | CHANNEL_RIGHT_WRITE)

/* Values that several records have. */

static const char *check_size(uint64_t size)
{
	if (size > INT64_MAX || size % 512 != 0)
		return "the size is not a multiple of 512 up to 8 EiB";
	return NULL;
}

static const char *check_flags(uint16_t flags, uint32_t known)
{
	if (!(flags & NBD_FLAG_HAS_FLAGS) || flags & ~known)
		return "the transmission flags are not possible";
	return NULL;
}

static bool is_power_of_two(uint32_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

/* OFFER */

static void read_offer(struct bytes *in, struct channel_record *ret)
{
	ret->offer.number = take_u64(in);
	ret->offer.size = take_u64(in);
	ret->offer.flags = take_u16(in);
	ret->offer.minimum_block = take_u32(in);
	ret->offer.preferred_block = take_u32(in);
	ret->offer.maximum_payload = take_u32(in);
	ret->offer.n_contexts = take_u16(in);
}

static const char *check_blocks(const struct channel_offer *offer)
{
	if (!is_power_of_two(offer->minimum_block) || offer->minimum_block > (64u << 10))
		return "the minimum block is not a power of two from 1 to 64 KiB";
	if (!is_power_of_two(offer->preferred_block) || offer->preferred_block < 4096 ||
	    offer->preferred_block < offer->minimum_block)
		return "the preferred block is not a power of two from 4096 and the minimum on";
	if (offer->maximum_payload > NBD_MAX_PAYLOAD ||
	    offer->maximum_payload < offer->preferred_block ||
	    offer->maximum_payload % offer->minimum_block != 0)
		return "the maximum payload is not from the preferred block to 32 MiB";
	return NULL;
}

static const char *check_offer(const struct channel_record *record)
{
	const struct channel_offer *offer = &record->offer;
	const char *fault;

	if (offer->number == 0)
		return "the offer has no number";
	if (offer->n_contexts > NBD_MAX_CONTEXTS)
		return "too many contexts";
	fault = check_size(offer->size);
	if (!fault)
		fault = check_flags(offer->flags, OFFER_FLAGS);
	return fault ? fault : check_blocks(offer);
}

static void write_offer(struct emit *out, const struct channel_record *record)
{
	emit_u64(out, record->offer.number);
	emit_u64(out, record->offer.size);
	emit_u16(out, record->offer.flags);
	emit_u32(out, record->offer.minimum_block);
	emit_u32(out, record->offer.preferred_block);
	emit_u32(out, record->offer.maximum_payload);
	emit_u16(out, record->offer.n_contexts);
}

/* CONTEXT */

static void read_context(struct bytes *in, struct channel_record *ret)
{
	ret->context.id = take_u32(in);
	ret->context.name = take_text(in);
}

static const char *check_context(const struct channel_record *record)
{
	if (record->context.name.len == 0)
		return "the context has no name";
	return check_text(record->context.name, NBD_MAX_STRING);
}

static void write_context(struct emit *out, const struct channel_record *record)
{
	emit_u32(out, record->context.id);
	emit_text(out, record->context.name);
}

/* LIVE */

static void read_live(struct bytes *in, struct channel_record *ret)
{
	ret->live.connection = take_u64(in);
	ret->live.peer = take_text(in);
}

static const char *check_live(const struct channel_record *record)
{
	return check_text(record->live.peer, CHANNEL_PEER_MAX);
}

static void write_live(struct emit *out, const struct channel_record *record)
{
	emit_u64(out, record->live.connection);
	emit_text(out, span_cut(record->live.peer, CHANNEL_PEER_MAX));
}

/* READY */

static void read_nothing(struct bytes *in, struct channel_record *ret)
{
	(void) in;
	(void) ret;
}

static const char *check_nothing(const struct channel_record *record)
{
	(void) record;
	return NULL;
}

static void write_nothing(struct emit *out, const struct channel_record *record)
{
	(void) out;
	(void) record;
}

/* FAILED, REFUSED */

static void read_refused(struct bytes *in, struct channel_record *ret)
{
	ret->refused.request = take_u32(in);
	ret->refused.reason = take_u32(in);
	ret->refused.sentence = take_text(in);
}

static const char *check_refused(const struct channel_record *record)
{
	bool failed = record->type == CHANNEL_FAILED;

	if (failed != (record->refused.request == 0))
		return failed ? "a failed start names a request" : "a refusal names no request";
	if (record->refused.reason == REASON_NONE || record->refused.reason >= N_REASONS)
		return "the reason is unknown";
	return check_text(record->refused.sentence, CHANNEL_SENTENCE_MAX);
}

static void write_refused(struct emit *out, const struct channel_record *record)
{
	emit_u32(out, record->refused.request);
	emit_u32(out, record->refused.reason);
	emit_text(out, span_cut(record->refused.sentence, CHANNEL_SENTENCE_MAX));
}

/* GRANTED */

static void read_granted(struct bytes *in, struct channel_record *ret)
{
	ret->granted.request = take_u32(in);
	ret->granted.token = take_u64(in);
	ret->granted.connection = take_u64(in);
	ret->granted.size = take_u64(in);
	ret->granted.flags = take_u16(in);
}

static const char *check_granted(const struct channel_record *record)
{
	const char *fault;

	if (record->granted.request == 0)
		return "the grant names no request";
	fault = check_size(record->granted.size);
	return fault ? fault : check_flags(record->granted.flags, GRANTED_FLAGS);
}

static void write_granted(struct emit *out, const struct channel_record *record)
{
	emit_u32(out, record->granted.request);
	emit_u64(out, record->granted.token);
	emit_u64(out, record->granted.connection);
	emit_u64(out, record->granted.size);
	emit_u16(out, record->granted.flags);
}

/* GONE */

static void read_gone(struct bytes *in, struct channel_record *ret)
{
	ret->gone.connection = take_u64(in);
	ret->gone.reason = take_u32(in);
}

static const char *check_gone(const struct channel_record *record)
{
	return record->gone.reason < N_REASONS ? NULL : "the reason is unknown";
}

static void write_gone(struct emit *out, const struct channel_record *record)
{
	emit_u64(out, record->gone.connection);
	emit_u32(out, record->gone.reason);
}

/* RESERVE */

/* Stores what fits: check_reserve() refuses a count that is higher. */
static void read_reserve(struct bytes *in, struct channel_record *ret)
{
	struct bytes ids;

	ret->reserve.request = take_u32(in);
	ret->reserve.offer = take_u64(in);
	ret->reserve.mode = take_u8(in);
	ret->reserve.rights = take_u8(in);
	ret->reserve.peer = take_text(in);
	ret->reserve.identity = take_text(in);
	ret->reserve.n_contexts = take_u16(in);
	ids = take_bytes(in, ret->reserve.n_contexts * sizeof(uint32_t));
	for (size_t i = 0; i < NBD_MAX_CONTEXTS && bytes_left(&ids); i++)
		ret->reserve.contexts[i] = take_u32(&ids);
	ret->reserve.tls = take_text(in);
}

static const char *check_ids(const uint32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (ids[i] == ids[j])
				return "a context comes twice";
	return NULL;
}

static const char *check_reserve(const struct channel_record *record)
{
	const struct channel_reserve *reserve = &record->reserve;
	const char *fault;

	if (reserve->request == 0 || reserve->offer == 0)
		return "the reservation has no number";
	if (reserve->mode >= N_NBD_MODES || reserve->rights & ~ALL_RIGHTS)
		return "the mode or the rights are unknown";
	if (reserve->n_contexts > NBD_MAX_CONTEXTS)
		return "too many contexts";
	if (reserve->n_contexts && reserve->mode == NBD_MODE_SIMPLE)
		return "contexts without structured replies";
	fault = check_text(reserve->peer, CHANNEL_PEER_MAX);
	if (!fault)
		fault = check_text(reserve->identity, CHANNEL_IDENTITY_MAX);
	if (!fault)
		fault = check_text(reserve->tls, CHANNEL_TLS_MAX);
	return fault ? fault : check_ids(reserve->contexts, reserve->n_contexts);
}

static void write_reserve(struct emit *out, const struct channel_record *record)
{
	const struct channel_reserve *reserve = &record->reserve;

	assert(reserve->n_contexts <= NBD_MAX_CONTEXTS);

	emit_u32(out, reserve->request);
	emit_u64(out, reserve->offer);
	emit_u8(out, reserve->mode);
	emit_u8(out, reserve->rights);
	emit_text(out, span_cut(reserve->peer, CHANNEL_PEER_MAX));
	emit_text(out, reserve->identity);
	emit_u16(out, reserve->n_contexts);
	for (size_t i = 0; i < reserve->n_contexts; i++)
		emit_u32(out, reserve->contexts[i]);
	emit_text(out, span_cut(reserve->tls, CHANNEL_TLS_MAX));
}

/* HANDOFF, ABANDON */

static void read_token(struct bytes *in, struct channel_record *ret)
{
	ret->token.token = take_u64(in);
}

static void write_token(struct emit *out, const struct channel_record *record)
{
	emit_u64(out, record->token.token);
}

/* REFUSAL */

static void read_refusal(struct bytes *in, struct channel_record *ret)
{
	ret->refusal.reason = take_u32(in);
	ret->refusal.peer = take_text(in);
	ret->refusal.sentence = take_text(in);
}

static const char *check_refusal(const struct channel_record *record)
{
	const struct channel_refusal *refusal = &record->refusal;
	const char *fault;

	if (refusal->reason == REASON_NONE || refusal->reason >= N_REASONS)
		return "the reason is unknown";
	fault = check_text(refusal->peer, CHANNEL_PEER_MAX);
	return fault ? fault : check_text(refusal->sentence, CHANNEL_SENTENCE_MAX);
}

static void write_refusal(struct emit *out, const struct channel_record *record)
{
	emit_u32(out, record->refusal.reason);
	emit_text(out, span_cut(record->refusal.peer, CHANNEL_PEER_MAX));
	emit_text(out, span_cut(record->refusal.sentence, CHANNEL_SENTENCE_MAX));
}

static const struct row {
	void (*read)(struct bytes *in, struct channel_record *ret);
	const char *(*check)(const struct channel_record *record);
	void (*write)(struct emit *out, const struct channel_record *record);
} rows[] = {
	[CHANNEL_OFFER] = { read_offer, check_offer, write_offer },
	[CHANNEL_CONTEXT] = { read_context, check_context, write_context },
	[CHANNEL_LIVE] = { read_live, check_live, write_live },
	[CHANNEL_READY] = { read_nothing, check_nothing, write_nothing },
	[CHANNEL_FAILED] = { read_refused, check_refused, write_refused },
	[CHANNEL_GRANTED] = { read_granted, check_granted, write_granted },
	[CHANNEL_REFUSED] = { read_refused, check_refused, write_refused },
	[CHANNEL_GONE] = { read_gone, check_gone, write_gone },
	[CHANNEL_RESERVE] = { read_reserve, check_reserve, write_reserve },
	[CHANNEL_HANDOFF] = { read_token, check_nothing, write_token },
	[CHANNEL_ABANDON] = { read_token, check_nothing, write_token },
	[CHANNEL_REFUSAL] = { read_refusal, check_refusal, write_refusal },
};

static const struct row *row_of(unsigned type)
{
	return type < ARRAY_LEN(rows) && rows[type].read ? &rows[type] : NULL;
}

const char *decode_channel_record(struct bytes in, struct channel_record *ret)
{
	struct channel_record record = { 0 };
	const struct row *row;
	struct bytes body;
	uint8_t type;
	const char *fault = take_frame(in, CHANNEL_VERSION, &type, &body);

	if (fault)
		return fault;
	row = row_of(type);
	if (!row)
		return "the type is unknown";

	record.type = type;
	row->read(&body, &record);
	if (!bytes_all_taken(&body))
		return "a field's length is wrong";
	fault = row->check(&record);
	if (fault)
		return fault;
	*ret = record;
	return NULL;
}

void emit_channel_record(struct emit *out, const struct channel_record *record)
{
	const struct row *row = row_of(record->type);
	size_t body_at;

	assert(row);

	body_at = emit_frame_begin(out, CHANNEL_VERSION, (uint8_t) record->type);
	row->write(out, record);
	emit_frame_end(out, body_at);
}
