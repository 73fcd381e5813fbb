/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The records between negotiator and nbd-tls: each as bytes, every value that is refused, every
 * truncation.
 */
#include "check.h"

#include <stdlib.h>

#include "base/attr.h"
#include "wire/tls-channel.h"

#define RECORD(type, length) 1, (type), U16(0), U32(length)
#define F8 'a', 'b', 'c', 'd', 'e', 'f', '0', '9'
#define FINGERPRINT F8, F8, F8, F8, F8, F8, F8, F8

enum { ANONYMOUS, CERTIFICATE, KEY };   /* three shapes of ESTABLISHED */

static const struct good {
	const char *what;
	enum tls_record_type type;
	const uint8_t *at;
	size_t len;
} good[] = {
	[ANONYMOUS] = { "anonymous", TLS_ESTABLISHED,
	  BYTES(RECORD(2, 27), U32(7), U64(1), U16(1), 'v', U16(1), 'c', 1, U16(0), U16(0), U16(0),
	        U16(0)) },
	[CERTIFICATE] = { "certificate", TLS_ESTABLISHED,
	  BYTES(RECORD(2, 103), U32(7), U64(1), U16(1), 'v', U16(1), 'c', 2, U16(4), 'C', 'N', '=',
	        'a', U16(64), FINGERPRINT, U16(0), U16(2), U16(2), 'd', ':', U16(2), 'e', ':') },
	[KEY] = { "pre-shared key", TLS_ESTABLISHED,
	  BYTES(RECORD(2, 30), U32(7), U64(1), U16(1), 'v', U16(1), 'c', 3, U16(0), U16(0), U16(3),
	        'b', 'o', 'b', U16(0)) },
	{ "hello", TLS_HELLO, BYTES(RECORD(1, 15), 7, U64(5), U16(4), 'C', 'N', '=', 's') },
	{ "failed", TLS_FAILED, BYTES(RECORD(3, 12), U32(7), U32(19), U16(2), 'n', 'o') },
	{ "ended", TLS_ENDED, BYTES(RECORD(4, 12), U64(1), U32(14)) },
	{ "start", TLS_START, BYTES(RECORD(16, 13), U32(7), U32(10000), 1, U16(2), 'm', 'e') },
	{ "connect", TLS_CONNECT, BYTES(RECORD(18, 15), U32(7), U32(10000), U16(1), 'h', U16(2), 'm',
	                                'e') },
	{ "cancel", TLS_CANCEL, BYTES(RECORD(17, 4), U32(7)) },
};

/* Decodes an exact copy, so that the sanitizers see a read past the end, into a record full of
 * a pattern, which a refusal must leave there. */
static const char *decode(const uint8_t *at, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct tls_record record, before;
	const char *fault;

	if (!copy)
		abort();
	memcpy(copy, at, len);
	memset(&record, 0x5a, sizeof record);
	memcpy(&before, &record, sizeof before);
	fault = decode_tls_record(bytes_over(copy, len), &record);
	if (fault)
		CHECK_EQ(fault, memcmp(&before, &record, sizeof record), 0);
	free(copy);
	return fault;
}

TEST(good_records_are_read_and_written_alike)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t buffer[TLS_RECORD_MAX];
		struct emit out = emit_into(buffer, sizeof buffer);
		struct tls_record record;

		CHECK_STR(good[i].what, decode_tls_record(bytes_over(good[i].at, good[i].len),
		                                          &record), NULL);
		CHECK_EQ(good[i].what, record.type, good[i].type);
		emit_tls_record(&out, &record);
		CHECK(emit_fits(&out));
		CHECK_EQ(good[i].what, out.len, good[i].len);
		CHECK_EQ(good[i].what, memcmp(buffer, good[i].at, good[i].len), 0);
	}
}

TEST(every_truncation_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		for (size_t len = 0; len < good[i].len; len++) {
			uint8_t copy[128];

			memcpy(copy, good[i].at, len);
			CHECK(decode(copy, len) != NULL);
			if (len < 8)
				continue;
			copy[7] = (uint8_t) (len - 8);  /* and when the header admits it */
			CHECK(decode(copy, len) != NULL);
		}
	}
}

TEST(bytes_left_over_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t copy[128] = { 0 };

		memcpy(copy, good[i].at, good[i].len);
		CHECK(decode(copy, good[i].len + 1) != NULL);
		copy[7]++;
		CHECK(decode(copy, good[i].len + 1) != NULL);
	}
}

TEST(version_type_and_the_zeroes_must_be_right)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint8_t copy[128];

		memcpy(copy, good[i].at, good[i].len);
		copy[0] = 2;
		CHECK(decode(copy, good[i].len) != NULL);
		copy[0] = 1;
		copy[3] = 1;
		CHECK(decode(copy, good[i].len) != NULL);
	}
	for (unsigned type = 0; type < 256; type++) {
		const uint8_t empty[] = { RECORD((uint8_t) type, 0) };

		CHECK(decode(empty, sizeof empty) != NULL);
	}
}

/* A good record in which the field at `at` (of the body) has another value. */
static const struct change {
	const char *what;
	const char *of;
	size_t at;
	unsigned size;                  /* bytes of the field */
	uint64_t value;
	bool good;
} changes[] = {
	{ "it can nothing, but has a certificate", "hello", 0, 1, 0, false },
	{ "it can PSK, but has a certificate", "hello", 0, 1, 2, false },
	{ "a certificate alone", "hello", 0, 1, 1, true },
	{ "it can more", "hello", 0, 1, 8, false },
	{ "a time before all times", "hello", 1, 8, UINT64_MAX, false },
	{ "a subject with a NUL", "hello", 11, 1, 0, false },
	{ "a session for no request", "anonymous", 0, 4, 0, false },
	{ "session 0", "anonymous", 4, 8, 0, false },
	{ "a version that is not UTF-8", "anonymous", 14, 1, 0xff, false },
	{ "a cipher with a NUL", "anonymous", 17, 1, 0, false },
	{ "method 0", "anonymous", 18, 1, 0, false },
	{ "method 4", "anonymous", 18, 1, 4, false },
	{ "a certificate without a fingerprint", "anonymous", 18, 1, 2, false },
	{ "a key without an identity", "anonymous", 18, 1, 3, false },
	{ "names that are not there", "anonymous", 25, 2, 1, false },
	{ "65535 names", "anonymous", 25, 2, 65535, false },
	{ "a subject of nobody", "certificate", 18, 1, 1, false },
	{ "a subject of a key", "certificate", 18, 1, 3, false },
	{ "a fingerprint in capitals", "certificate", 27, 1, 'A', false },
	{ "a fingerprint beyond f", "certificate", 27, 1, 'g', false },
	{ "a name with a NUL", "certificate", 98, 1, 0, false },
	{ "fewer names than bytes", "certificate", 93, 2, 1, false },
	{ "an identity of nobody", "pre-shared key", 18, 1, 1, false },
	{ "an identity of a certificate", "pre-shared key", 18, 1, 2, false },
	{ "an identity that is not UTF-8", "pre-shared key", 25, 1, 0xc3, false },
	{ "a failure of nothing", "failed", 0, 4, 0, false },
	{ "a failure without reason", "failed", 4, 4, REASON_NONE, false },
	{ "the last reason", "failed", 4, 4, N_REASONS - 1, true },
	{ "an unknown reason", "failed", 4, 4, N_REASONS, false },
	{ "a sentence with a NUL", "failed", 10, 1, 0, false },
	{ "the end of nothing", "ended", 0, 8, 0, false },
	{ "an end without reason", "ended", 8, 4, REASON_NONE, false },
	{ "an end for an unknown reason", "ended", 8, 4, UINT32_MAX, false },
	{ "request 0", "start", 0, 4, 0, false },
	{ "the last request", "start", 0, 4, UINT32_MAX, true },
	{ "no time", "start", 4, 4, 0, false },
	{ "an hour", "start", 4, 4, TLS_DEADLINE_MAX, true },
	{ "more than an hour", "start", 4, 4, TLS_DEADLINE_MAX + 1, false },
	{ "a certificate required", "start", 8, 1, 2, true },
	{ "an unknown wish", "start", 8, 1, 3, false },
	{ "a peer with a NUL", "start", 12, 1, 0, false },
	{ "a connection without a number", "connect", 0, 4, 0, false },
	{ "a connection without time", "connect", 4, 4, 0, false },
	{ "a connection that takes more than an hour", "connect", 4, 4, TLS_DEADLINE_MAX + 1, false },
	{ "a server without a name", "connect", 8, 2, 0, false },
	{ "a server with a NUL", "connect", 10, 1, 0, false },
	{ "a server that is not UTF-8", "connect", 10, 1, 0xff, false },
	{ "a peer of a connection with a NUL", "connect", 14, 1, 0, false },
	{ "the cancelling of nothing", "cancel", 0, 4, 0, false },
};

static const struct good *good_of(const char *what)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		if (strcmp(good[i].what, what) == 0)
			return &good[i];
	abort();
}

TEST(values_out_of_range_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		const struct change *c = &changes[i];
		const struct good *from = good_of(c->of);
		uint8_t copy[128];

		memcpy(copy, from->at, from->len);
		for (unsigned byte = 0; byte < c->size; byte++)
			copy[8 + c->at + byte] =
				(uint8_t) (c->value >> 8 * (c->size - 1 - byte));
		CHECK_EQ(c->what, decode(copy, from->len) == NULL, c->good);
	}
}

static char long_text[65536];

static struct span text_of(size_t len)
{
	memset(long_text, 'x', sizeof long_text);
	return (struct span) { .at = (const uint8_t *) long_text, .len = len };
}

/* Whether a record with this identity is taken; it must fit its buffer if it is. */
static bool is_taken(const struct tls_identity *identity)
{
	static uint8_t buffer[1 << 20];
	struct emit out = emit_into(buffer, sizeof buffer);
	const struct tls_record record = { .type = TLS_ESTABLISHED, .established = {
		.request = 1, .session = 1, .version = text_of(TLS_WORD_MAX),
		.cipher = text_of(TLS_WORD_MAX), .identity = *identity,
	} };
	bool taken;

	emit_tls_record(&out, &record);
	CHECK(emit_fits(&out));
	taken = decode(buffer, out.len) == NULL;
	if (taken)
		CHECK(out.len <= TLS_RECORD_MAX);
	CHECK_EQ("", check_tls_identity(identity) == NULL, taken);
	return taken;
}

TEST(an_identity_has_limits_in_each_part_and_as_a_whole)
{
	static const uint8_t digits[] = { FINGERPRINT };
	struct tls_identity id = {
		.method = TLS_METHOD_X509, .fingerprint = { .at = digits, .len = sizeof digits },
	};
	struct tls_identity key = { .method = TLS_METHOD_PSK };

	CHECK(is_taken(&id));
	id.subject = text_of(TLS_SUBJECT_MAX);
	CHECK(is_taken(&id));
	id.subject.len++;
	CHECK(!is_taken(&id));
	id.subject = text_of(0);
	for (id.n_names = 0; id.n_names < TLS_MAX_NAMES; id.n_names++)
		id.names[id.n_names] = text_of(127);
	CHECK_EQ("the sum is the limit", 64 * 127 + 64, TLS_IDENTITY_MAX);
	CHECK(is_taken(&id));
	id.names[0].len++;
	CHECK(!is_taken(&id));
	id.names[0].len = 0;
	CHECK(!is_taken(&id));
	id.n_names = 1;
	id.names[0] = text_of(TLS_NAME_MAX);
	CHECK(is_taken(&id));
	id.names[0].len++;
	CHECK(!is_taken(&id));

	key.psk = text_of(TLS_NAME_MAX);
	CHECK(is_taken(&key));
	key.psk.len++;
	CHECK(!is_taken(&key));
}

TEST(what_is_too_long_to_send_is_cut)
{
	struct tls_record record = { .type = TLS_FAILED, .failed = {
		.request = 1, .reason = 1, .sentence = text_of(5000) } };
	uint8_t buffer[TLS_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct tls_record got;

	emit_tls_record(&out, &record);
	CHECK(emit_fits(&out));
	CHECK(decode_tls_record(bytes_over(buffer, out.len), &got) == NULL);
	CHECK_EQ("", got.failed.sentence.len, TLS_SENTENCE_MAX);
}

TEST(descriptors_belong_to_three_records)
{
	CHECK(tls_record_carries_fd(TLS_START) && tls_record_carries_fd(TLS_ESTABLISHED));
	CHECK(tls_record_carries_fd(TLS_CONNECT) && tls_record_is_negotiators(TLS_CONNECT));
	CHECK(!tls_record_carries_fd(TLS_CANCEL) && !tls_record_carries_fd(TLS_FAILED));
	CHECK(tls_record_is_negotiators(TLS_START) && tls_record_is_negotiators(TLS_CANCEL));
	CHECK(!tls_record_is_negotiators(TLS_HELLO) && !tls_record_is_negotiators(TLS_ENDED));
}
