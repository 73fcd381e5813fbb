/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The channel's records. */
#include "record.h"

#include "wire/channel.h"

static void require_offer(const struct channel_offer *offer)
{
	REQUIRE(offer->number != 0);
	REQUIRE(offer->size <= INT64_MAX && offer->size % 512 == 0);
	REQUIRE(!(offer->flags & (NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STAT_PAYLOAD)));
	REQUIRE(__builtin_popcount(offer->minimum_block) == 1 && offer->minimum_block <= 65536);
	REQUIRE(__builtin_popcount(offer->preferred_block) == 1);
	REQUIRE(offer->preferred_block >= 4096 && offer->preferred_block <= 32u << 20);
	REQUIRE(offer->maximum_payload > 0 && offer->maximum_payload <= NBD_MAX_PAYLOAD);
	REQUIRE(offer->n_contexts <= NBD_MAX_CONTEXTS);
}

static void require_reserve(const struct channel_reserve *reserve, const uint8_t *at, size_t len)
{
	REQUIRE(reserve->request != 0 && reserve->offer != 0);
	REQUIRE(reserve->mode < N_NBD_MODES && reserve->rights < 4);
	REQUIRE(reserve->n_contexts <= NBD_MAX_CONTEXTS);
	require_text(reserve->peer, CHANNEL_PEER_MAX, at, len);
	require_text(reserve->identity, CHANNEL_IDENTITY_MAX, at, len);
	require_text(reserve->tls, CHANNEL_TLS_MAX, at, len);
	for (size_t i = 0; i < reserve->n_contexts; i++)
		for (size_t j = 0; j < i; j++)
			REQUIRE(reserve->contexts[i] != reserve->contexts[j]);
}

static void require_record(const struct channel_record *record, const uint8_t *at, size_t len)
{
	switch (record->type) {
	case CHANNEL_OFFER:
		return require_offer(&record->offer);
	case CHANNEL_CONTEXT:
		REQUIRE(record->context.name.len > 0);
		return require_text(record->context.name, NBD_MAX_STRING, at, len);
	case CHANNEL_LIVE:
		return require_text(record->live.peer, CHANNEL_PEER_MAX, at, len);
	case CHANNEL_FAILED:
	case CHANNEL_REFUSED:
		REQUIRE((record->type == CHANNEL_FAILED) == (record->refused.request == 0));
		REQUIRE(record->refused.reason > 0 && record->refused.reason < N_REASONS);
		return require_text(record->refused.sentence, CHANNEL_SENTENCE_MAX, at, len);
	case CHANNEL_GRANTED:
		REQUIRE(record->granted.request != 0);
		REQUIRE(record->granted.size <= INT64_MAX && record->granted.size % 512 == 0);
		return;
	case CHANNEL_GONE:
		REQUIRE(record->gone.reason < N_REASONS);
		return;
	case CHANNEL_RESERVE:
		return require_reserve(&record->reserve, at, len);
	case CHANNEL_REFUSAL:
		REQUIRE(record->refusal.reason > 0 && record->refusal.reason < N_REASONS);
		require_text(record->refusal.peer, CHANNEL_PEER_MAX, at, len);
		return require_text(record->refusal.sentence, CHANNEL_SENTENCE_MAX, at, len);
	case CHANNEL_READY:
	case CHANNEL_HANDOFF:
	case CHANNEL_ABANDON:
		return;
	}
	REQUIRE(record->type == CHANNEL_READY);         /* the type is none of the above */
}

/* There is one form of each record: what is read is written as the same bytes. */
static void fuzz_record(const uint8_t *at, size_t len)
{
	static uint8_t buffer[CHANNEL_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct channel_record record, before;

	memset(&record, 0x5a, sizeof record);
	memcpy(&before, &record, sizeof before);
	if (decode_channel_record(bytes_over(at, len), &record)) {
		REQUIRE(memcmp(&record, &before, sizeof record) == 0);
		return;
	}
	require_record(&record, at, len);
	emit_channel_record(&out, &record);
	REQUIRE(emit_fits(&out));
	REQUIRE(out.len == len && memcmp(buffer, at, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	fuzz_framed(at, len, CHANNEL_VERSION, fuzz_record);
	return 0;
}
