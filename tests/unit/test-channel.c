/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trust boundary between the processes: every record as bytes, every value that is
 * refused, every truncation.
 */
#include "check.h"

#include <stdlib.h>

#include "base/attr.h"
#include "wire/channel.h"

#define RECORD(type, length) 1, (type), U16(0), U32(length)
#define FLAGS 0x0d7du           /* HAS_FLAGS and all else that an offer may have, but READ_ONLY */

/* One good record of each kind, as bytes. */
static const struct good {
	const char *what;
	enum channel_type type;
	const uint8_t *at;
	size_t len;
} good[] = {
	{ "offer", CHANNEL_OFFER,
	  BYTES(RECORD(1, 32), U64(1), U64(0x7ffffffffffffe00), U16(FLAGS), U32(512), U32(4096),
	        U32(33554432), U16(2)) },
	{ "context", CHANNEL_CONTEXT, BYTES(RECORD(2, 9), U32(2), U16(3), 'a', ':', 'b') },
	{ "live", CHANNEL_LIVE, BYTES(RECORD(3, 12), U64(5), U16(2), 'm', 'e') },
	{ "ready", CHANNEL_READY, BYTES(RECORD(4, 0)) },
	{ "failed", CHANNEL_FAILED, BYTES(RECORD(5, 12), U32(0), U32(5), U16(2), 'n', 'o') },
	{ "granted", CHANNEL_GRANTED,
	  BYTES(RECORD(6, 30), U32(9), U64(0xffffffffffffffff), U64(5), U64(512), U16(0x1081)) },
	{ "refused", CHANNEL_REFUSED, BYTES(RECORD(7, 12), U32(9), U32(4), U16(2), 'n', 'o') },
	{ "gone", CHANNEL_GONE, BYTES(RECORD(8, 12), U64(5), U32(14)) },
	{ "reserve", CHANNEL_RESERVE,
	  BYTES(RECORD(16, 34), U32(9), U64(1), 2, 3, U16(2), 'm', 'e', U16(1), 'i', U16(2), U32(0),
	        U32(1), U16(1), 't') },
	{ "handoff", CHANNEL_HANDOFF, BYTES(RECORD(17, 8), U64(0x1122334455667788)) },
	{ "abandon", CHANNEL_ABANDON, BYTES(RECORD(18, 8), U64(0x1122334455667788)) },
	{ "refusal", CHANNEL_REFUSAL,
	  BYTES(RECORD(19, 12), U32(4), U16(2), 'm', 'e', U16(2), 'n', 'o') },
};

/* A copy of its exact length, so that the sanitizers see a read past the end. */
static uint8_t *copy_of(const uint8_t *at, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	if (len)
		memcpy(copy, at, len);
	return copy;
}

static const struct good *good_of(enum channel_type type)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		if (good[i].type == type)
			return &good[i];
	abort();
}

/* Decodes into a record full of a pattern, which a refusal must leave there. */
static const char *decode(const uint8_t *at, size_t len, struct channel_record *ret)
{
	struct channel_record before;
	const char *fault;

	memset(ret, 0x5a, sizeof *ret);
	memcpy(&before, ret, sizeof before);
	fault = decode_channel_record(bytes_over(at, len), ret);
	if (fault)
		CHECK_EQ(fault, memcmp(&before, ret, sizeof before), 0);
	return fault;
}

TEST(good_records_are_read_and_written_alike)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t buffer[CHANNEL_RECORD_MAX];
		struct emit out = emit_into(buffer, sizeof buffer);
		struct channel_record record;

		CHECK_STR(good[i].what, decode(good[i].at, good[i].len, &record), NULL);
		CHECK_EQ(good[i].what, record.type, good[i].type);
		emit_channel_record(&out, &record);
		CHECK(emit_fits(&out));
		CHECK_EQ(good[i].what, out.len, good[i].len);
		CHECK_EQ(good[i].what, memcmp(buffer, good[i].at, good[i].len), 0);
	}
}

TEST(every_truncation_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		for (size_t len = 0; len < good[i].len; len++) {
			uint8_t *copy = copy_of(good[i].at, len);
			struct channel_record record;

			CHECK(decode(copy, len, &record) != NULL);
			free(copy);
		}
	}
}

/* The body cut short, with a length in the header that admits it. */
TEST(every_shorter_body_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		for (size_t len = 8; len < good[i].len; len++) {
			uint8_t *copy = copy_of(good[i].at, len);
			struct channel_record record;

			copy[7] = (uint8_t) (len - 8);
			CHECK(decode(copy, len, &record) != NULL);
			free(copy);
		}
	}
}

TEST(bytes_left_over_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t copy[128] = { 0 };
		struct channel_record record;

		memcpy(copy, good[i].at, good[i].len);
		CHECK(decode(copy, good[i].len + 1, &record) != NULL);
		copy[7]++;              /* and when the header counts it */
		CHECK(decode(copy, good[i].len + 1, &record) != NULL);
	}
}

TEST(version_type_and_the_zeroes_must_be_right)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t *copy = copy_of(good[i].at, good[i].len);
		struct channel_record record;

		copy[0] = 2;
		CHECK(decode(copy, good[i].len, &record) != NULL);
		copy[0] = 1;
		copy[3] = 1;
		CHECK(decode(copy, good[i].len, &record) != NULL);
		copy[3] = 0;
		copy[4] = 0xff;
		CHECK(decode(copy, good[i].len, &record) != NULL);
		free(copy);
	}
	for (unsigned type = 0; type < 256; type++) {
		const uint8_t empty[] = { RECORD((uint8_t) type, 0) };
		struct channel_record record;
		bool want = type == CHANNEL_READY;

		CHECK_EQ("type", decode(empty, sizeof empty, &record) == NULL, want);
	}
}

/* A good record in which the field at `at` (of the body) has another value. */
struct change {
	const char *what;
	enum channel_type type;
	size_t at;
	unsigned size;                  /* bytes of the field */
	uint64_t value;
	bool good;
};

static const struct change changes[] = {
	{ "offer 0", CHANNEL_OFFER, 0, 8, 0, false },
	{ "the last offer", CHANNEL_OFFER, 0, 8, UINT64_MAX, true },
	{ "no size", CHANNEL_OFFER, 8, 8, 0, true },
	{ "half a sector", CHANNEL_OFFER, 8, 8, 256, false },
	{ "a sector and a byte", CHANNEL_OFFER, 8, 8, 513, false },
	{ "a sector", CHANNEL_OFFER, 8, 8, 512, true },
	{ "INT64_MAX", CHANNEL_OFFER, 8, 8, INT64_MAX, false },
	{ "8 EiB", CHANNEL_OFFER, 8, 8, UINT64_C(1) << 63, false },
	{ "no flags", CHANNEL_OFFER, 16, 2, 0, false },
	{ "flags without HAS_FLAGS", CHANNEL_OFFER, 16, 2, FLAGS & ~1u, false },
	{ "read-only", CHANNEL_OFFER, 16, 2, 3, true },
	{ "DF in an offer", CHANNEL_OFFER, 16, 2, 1 | NBD_FLAG_SEND_DF, false },
	{ "RESIZE", CHANNEL_OFFER, 16, 2, 1 | NBD_FLAG_SEND_RESIZE, false },
	{ "payload in an offer", CHANNEL_OFFER, 16, 2, 1 | NBD_FLAG_BLOCK_STAT_PAYLOAD, false },
	{ "flag 13", CHANNEL_OFFER, 16, 2, 1 | 1u << 13, false },
	{ "minimum 0", CHANNEL_OFFER, 18, 4, 0, false },
	{ "minimum 1", CHANNEL_OFFER, 18, 4, 1, true },
	{ "minimum 3", CHANNEL_OFFER, 18, 4, 3, false },
	{ "minimum above preferred", CHANNEL_OFFER, 18, 4, 8192, false },
	{ "minimum 128 KiB", CHANNEL_OFFER, 18, 4, 131072, false },
	{ "preferred 2048", CHANNEL_OFFER, 22, 4, 2048, false },
	{ "preferred 5000", CHANNEL_OFFER, 22, 4, 5000, false },
	{ "preferred 32 MiB", CHANNEL_OFFER, 22, 4, 32u << 20, true },
	{ "preferred 64 MiB", CHANNEL_OFFER, 22, 4, 64u << 20, false },
	{ "payload 0", CHANNEL_OFFER, 26, 4, 0, false },
	{ "payload below preferred", CHANNEL_OFFER, 26, 4, 3584, false },
	{ "payload in blocks", CHANNEL_OFFER, 26, 4, 4608, true },
	{ "payload not in blocks", CHANNEL_OFFER, 26, 4, 4609, false },
	{ "payload above 32 MiB", CHANNEL_OFFER, 26, 4, (32u << 20) + 512, false },
	{ "64 contexts", CHANNEL_OFFER, 30, 2, 64, true },
	{ "65 contexts", CHANNEL_OFFER, 30, 2, 65, false },
	{ "a NUL in a context", CHANNEL_CONTEXT, 7, 1, 0, false },
	{ "a context that is not UTF-8", CHANNEL_CONTEXT, 7, 1, 0xff, false },
	{ "a context's length below its bytes", CHANNEL_CONTEXT, 4, 2, 2, false },
	{ "a context's length above its bytes", CHANNEL_CONTEXT, 4, 2, 4, false },
	{ "a peer with a NUL", CHANNEL_LIVE, 10, 1, 0, false },
	{ "a peer that is not UTF-8", CHANNEL_LIVE, 11, 1, 0xc3, false },
	{ "a failure of a request", CHANNEL_FAILED, 0, 4, 1, false },
	{ "a failure without reason", CHANNEL_FAILED, 4, 4, REASON_NONE, false },
	{ "a refusal of nothing", CHANNEL_REFUSED, 0, 4, 0, false },
	{ "a refusal without reason", CHANNEL_REFUSED, 4, 4, REASON_NONE, false },
	{ "the last reason", CHANNEL_REFUSED, 4, 4, N_REASONS - 1, true },
	{ "an unknown reason", CHANNEL_REFUSED, 4, 4, N_REASONS, false },
	{ "a reason of all ones", CHANNEL_REFUSED, 4, 4, UINT32_MAX, false },
	{ "a sentence with a NUL", CHANNEL_REFUSED, 11, 1, 0, false },
	{ "a grant of nothing", CHANNEL_GRANTED, 0, 4, 0, false },
	{ "a token of 0", CHANNEL_GRANTED, 4, 8, 0, true },
	{ "a granted half sector", CHANNEL_GRANTED, 20, 8, 768, false },
	{ "a granted 8 EiB", CHANNEL_GRANTED, 20, 8, UINT64_C(1) << 63, false },
	{ "granted flags without HAS_FLAGS", CHANNEL_GRANTED, 28, 2, 0x1080, false },
	{ "granted RESIZE", CHANNEL_GRANTED, 28, 2, 1 | NBD_FLAG_SEND_RESIZE, false },
	{ "granted flag 15", CHANNEL_GRANTED, 28, 2, 0x8001, false },
	{ "gone for no reason", CHANNEL_GONE, 8, 4, REASON_NONE, true },
	{ "gone for an unknown reason", CHANNEL_GONE, 8, 4, N_REASONS, false },
	{ "request 0", CHANNEL_RESERVE, 0, 4, 0, false },
	{ "reserve of offer 0", CHANNEL_RESERVE, 4, 8, 0, false },
	{ "mode 3", CHANNEL_RESERVE, 12, 1, 3, false },
	{ "structured mode", CHANNEL_RESERVE, 12, 1, 1, true },
	{ "contexts in simple mode", CHANNEL_RESERVE, 12, 1, 0, false },
	{ "no rights", CHANNEL_RESERVE, 13, 1, 0, true },
	{ "a third right", CHANNEL_RESERVE, 13, 1, 4, false },
	{ "all rights there are not", CHANNEL_RESERVE, 13, 1, 0xff, false },
	{ "a reserving peer with a NUL", CHANNEL_RESERVE, 16, 1, 0, false },
	{ "an identity with a NUL", CHANNEL_RESERVE, 20, 1, 0, false },
	{ "an identity that is not UTF-8", CHANNEL_RESERVE, 20, 1, 0x80, false },
	{ "fewer contexts than bytes", CHANNEL_RESERVE, 21, 2, 1, false },
	{ "more contexts than bytes", CHANNEL_RESERVE, 21, 2, 3, false },
	{ "65535 contexts", CHANNEL_RESERVE, 21, 2, 65535, false },
	{ "TLS with a NUL", CHANNEL_RESERVE, 33, 1, 0, false },
	{ "a context twice", CHANNEL_RESERVE, 23, 4, 1, false },
	{ "any context", CHANNEL_RESERVE, 23, 4, UINT32_MAX, true },
	{ "a noted refusal without reason", CHANNEL_REFUSAL, 0, 4, REASON_NONE, false },
	{ "the last reason, noted", CHANNEL_REFUSAL, 0, 4, N_REASONS - 1, true },
	{ "an unknown reason, noted", CHANNEL_REFUSAL, 0, 4, N_REASONS, false },
	{ "a refused peer with a NUL", CHANNEL_REFUSAL, 6, 1, 0, false },
	{ "a refused peer that is not UTF-8", CHANNEL_REFUSAL, 7, 1, 0xc3, false },
	{ "a noted sentence with a NUL", CHANNEL_REFUSAL, 10, 1, 0, false },
};

TEST(values_out_of_range_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		const struct change *c = &changes[i];
		const struct good *from = good_of(c->type);
		uint8_t *copy = copy_of(from->at, from->len);
		struct channel_record record;

		for (unsigned byte = 0; byte < c->size; byte++)
			copy[8 + c->at + byte] =
				(uint8_t) (c->value >> 8 * (c->size - 1 - byte));
		CHECK_EQ(c->what, decode(copy, from->len, &record) == NULL, c->good);
		free(copy);
	}
}

/* Emits, decodes from an exact copy, and tells the verdict; *ret_len is the record's length. */
static const char *through(const struct channel_record *record, struct channel_record *ret,
                           uint8_t buffer[static CHANNEL_RECORD_MAX], size_t *ret_len)
{
	struct emit out = emit_into(buffer, CHANNEL_RECORD_MAX);

	emit_channel_record(&out, record);
	CHECK(emit_fits(&out));
	*ret_len = out.len;
	return decode(buffer, out.len, ret);
}

static struct span filled(uint8_t *at, size_t len)
{
	memset(at, 'x', len);
	return (struct span) { .at = at, .len = len };
}

TEST(strings_have_a_longest_length)
{
	static uint8_t text[NBD_MAX_STRING + 1];
	uint8_t buffer[CHANNEL_RECORD_MAX];
	struct channel_record record = { .type = CHANNEL_CONTEXT }, got;
	size_t len;

	record.context.name = filled(text, NBD_MAX_STRING);
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	CHECK_EQ("", got.context.name.len, NBD_MAX_STRING);
	record.context.name = filled(text, NBD_MAX_STRING + 1);
	CHECK(through(&record, &got, buffer, &len) != NULL);
	record.context.name = filled(text, 0);
	CHECK(through(&record, &got, buffer, &len) != NULL);

	record = (struct channel_record) { .type = CHANNEL_RESERVE,
	                                   .reserve = { .request = 1, .offer = 1 } };
	record.reserve.identity = filled(text, CHANNEL_IDENTITY_MAX);
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	record.reserve.identity = filled(text, CHANNEL_IDENTITY_MAX + 1);
	CHECK(through(&record, &got, buffer, &len) != NULL);
}

/* Peers and sentences that are too long for the wire, by hand: the writer would cut them. */
TEST(peers_and_sentences_have_a_longest_length)
{
	uint8_t live[8 + 8 + 2 + 65] = { RECORD(3, 10 + 65), U64(5), U16(65) };
	uint8_t refused[8 + 8 + 2 + 513] = { RECORD(7, 10 + 513), U32(9), U32(4), U16(513) };
	struct channel_record record;

	(void) filled(live + 18, 65);
	CHECK(decode(live, sizeof live, &record) != NULL);
	live[7]--;
	live[17]--;
	CHECK_STR("", decode(live, sizeof live - 1, &record), NULL);

	(void) filled(refused + 18, 513);
	CHECK(decode(refused, sizeof refused, &record) != NULL);
	refused[7]--;
	refused[17]--;
	CHECK_STR("", decode(refused, sizeof refused - 1, &record), NULL);
}

/* "é" has two bytes, and every limit is in the middle of one. */
TEST(long_sentences_and_peers_are_cut_between_characters)
{
	static char text[2000] = "x";
	uint8_t buffer[CHANNEL_RECORD_MAX];
	struct channel_record record = { .type = CHANNEL_REFUSED }, got;
	size_t len;

	for (size_t i = 1; i + 2 < sizeof text; i += 2)
		memcpy(text + i, "\xc3\xa9", 2);
	record.refused = (struct channel_refused) { 1, REASON_NO_SLOT, span_of(text) };
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	CHECK_EQ("", got.refused.sentence.len, CHANNEL_SENTENCE_MAX - 1);

	record = (struct channel_record) { .type = CHANNEL_LIVE, .live = { 1, span_of(text) } };
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	CHECK_EQ("", got.live.peer.len, CHANNEL_PEER_MAX - 1);
}

TEST(the_largest_reservation_fits)
{
	static uint8_t text[CHANNEL_IDENTITY_MAX];
	uint8_t buffer[CHANNEL_RECORD_MAX];
	struct channel_record record = { .type = CHANNEL_RESERVE }, got;
	size_t len;

	record.reserve = (struct channel_reserve) { .request = 1, .offer = 1,
	                                            .mode = NBD_MODE_EXTENDED,
	                                            .n_contexts = NBD_MAX_CONTEXTS };
	record.reserve.peer = filled(text, CHANNEL_PEER_MAX);
	record.reserve.identity = filled(text, CHANNEL_IDENTITY_MAX);
	record.reserve.tls = filled(text, CHANNEL_TLS_MAX);
	for (uint32_t i = 0; i < NBD_MAX_CONTEXTS; i++)
		record.reserve.contexts[i] = i * 0x01010101u;
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	CHECK_EQ("", got.reserve.n_contexts, NBD_MAX_CONTEXTS);
	CHECK(memcmp(got.reserve.contexts, record.reserve.contexts,
	             sizeof got.reserve.contexts) == 0);
	CHECK(span_equal(got.reserve.identity, record.reserve.identity));
	CHECK(span_equal(got.reserve.tls, record.reserve.tls));
}

/* Identifiers that are really there, and would not fit the record's array. */
TEST(more_contexts_than_there_is_room_are_refused)
{
	enum { N = 1000 };
	uint8_t bytes[28 + N * 4 + 2] = { RECORD(16, 0), U32(9), U64(1), 2, 3, U16(0), U16(0) };

	for (uint32_t i = 0; i < N; i++)
		memcpy(bytes + 28 + 4 * i, (const uint8_t[]) { U32(i) }, 4);
	for (uint32_t n = 63; n <= N; n++) {
		struct channel_record record;

		memcpy(bytes + 4, (const uint8_t[]) { U32(20 + n * 4 + 2) }, 4);
		memcpy(bytes + 26, (const uint8_t[]) { U16(n) }, 2);
		/* The length behind them is zero, like the upper half of the next identifier. */
		CHECK_STR("n", decode(bytes, 28 + n * 4 + 2, &record),
		          n <= NBD_MAX_CONTEXTS ? NULL : "too many contexts");
	}
}

TEST(a_minimum_block_above_64_KiB_is_refused)
{
	struct channel_record record, got;
	uint8_t buffer[CHANNEL_RECORD_MAX];
	size_t len;

	CHECK_STR("", decode(good[0].at, good[0].len, &record), NULL);
	record.offer.preferred_block = 1u << 20;
	record.offer.minimum_block = 64u << 10;
	CHECK_STR("", through(&record, &got, buffer, &len), NULL);
	record.offer.minimum_block = 128u << 10;
	CHECK(through(&record, &got, buffer, &len) != NULL);
}

TEST(records_follow_each_other_in_one_buffer)
{
	uint8_t buffer[64];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct channel_record ready = { .type = CHANNEL_READY }, got;
	struct channel_record token = { .type = CHANNEL_HANDOFF, .token = { 7 } };

	emit_channel_record(&out, &ready);
	emit_channel_record(&out, &token);
	CHECK_EQ("", out.len, 8 + 16);
	CHECK_STR("", decode(buffer, 8, &got), NULL);
	CHECK_STR("", decode(buffer + 8, 16, &got), NULL);
	CHECK_EQ("", got.token.token, 7);
}

TEST(what_does_not_fit_is_told)
{
	uint8_t buffer[15];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct channel_record token = { .type = CHANNEL_HANDOFF, .token = { 7 } };

	emit_channel_record(&out, &token);
	CHECK(!emit_fits(&out));
}

TEST(only_a_handoff_carries_a_descriptor)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		CHECK_EQ(good[i].what, channel_carries_fd(good[i].type),
		         good[i].type == CHANNEL_HANDOFF);
}

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* What a mutant decodes to is written as the bytes that it was read from: there is one
 * form of each record, and nothing in it is lost. */
TEST(mutants_are_refused_or_written_as_they_came)
{
	uint32_t state = 20240602;
	unsigned n_good = 0;

	for (unsigned i = 0; i < 200000; i++) {
		const struct good *from = &good[next_random(&state) % ARRAY_LEN(good)];
		size_t len = from->len;
		uint8_t *copy = copy_of(from->at, len);
		uint8_t buffer[CHANNEL_RECORD_MAX];
		struct emit out = emit_into(buffer, sizeof buffer);
		struct channel_record record;

		for (unsigned n = 1 + next_random(&state) % 3; n; n--)
			copy[next_random(&state) % len] ^=
				(uint8_t) (1u << next_random(&state) % 8);
		if (decode_channel_record(bytes_over(copy, len), &record) == NULL) {
			n_good++;
			emit_channel_record(&out, &record);
			CHECK(out.len == len && memcmp(buffer, copy, len) == 0);
		}
		free(copy);
	}
	CHECK(n_good > 1000);           /* or the loop tests only refusals */
}
