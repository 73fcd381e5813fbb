/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What servers answer in the handshake: each as bytes, every value that is refused, every
 * truncation.
 */
#include "check.h"

#include <stdlib.h>

#include "base/attr.h"
#include "wire/answer.h"

#define MAGIC U64(NBD_MAGIC)
#define STYLE U64(NBD_OPTS_MAGIC)

/* Over an exact copy, so that the sanitizers see a read past its end; the facts begin as a pattern
 * that a refusal must leave there. */
static const char *info(const uint8_t *at, size_t len, struct export_facts *ret)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct export_facts before;
	const char *fault;

	if (!copy)
		abort();
	memcpy(copy, at, len);
	memset(ret, 0x5a, sizeof *ret);
	memcpy(&before, ret, sizeof before);
	fault = decode_info(bytes_over(copy, len), ret);
	if (fault)
		CHECK_EQ(fault, memcmp(&before, ret, sizeof before), 0);
	free(copy);
	return fault;
}

static const struct {
	const char *what;
	const uint8_t *at;
	size_t len;
	bool good;
} greetings[] = {
	{ "fixed newstyle", BYTES(MAGIC, STYLE, U16(1)), true },
	{ "and no zeroes, and more", BYTES(MAGIC, STYLE, U16(0xffff)), true },
	{ "newstyle that is not fixed", BYTES(MAGIC, STYLE, U16(2)), false },
	{ "oldstyle", BYTES(MAGIC, U64(0x0000420281861253), U16(1)), false },
	{ "another style", BYTES(MAGIC, U64(1), U16(1)), false },
	{ "HTTP", BYTES('H', 'T', 'T', 'P', '/', '1', '.', '1', STYLE, U16(1)), false },
	{ "one byte over", BYTES(MAGIC, STYLE, U16(1), 0), false },
};

TEST(greetings_of_other_protocols_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(greetings); i++) {
		uint16_t flags = 0x5a5a;

		CHECK_EQ(greetings[i].what, decode_greeting(bytes_over(greetings[i].at,
		         greetings[i].len), &flags) == NULL, greetings[i].good);
		if (!greetings[i].good)
			CHECK_EQ("untouched", flags, 0x5a5a);
	}
	for (size_t len = 0; len < greetings[0].len; len++) {
		uint16_t flags;

		CHECK(decode_greeting(bytes_over(greetings[0].at, len), &flags) != NULL);
	}
}

#define ANSWER(option, type, length) U64(NBD_REP_MAGIC), U32(option), U32(type), U32(length)

static const struct {
	const char *what;
	const uint8_t *at;
	size_t len;
	bool good;
} headers[] = {
	{ "an acknowledgement", BYTES(ANSWER(7, 1, 0)), true },
	{ "an unknown error", BYTES(ANSWER(7, 0x80000063, 4096)), true },
	{ "the longest", BYTES(ANSWER(7, 3, NBD_MAX_ANSWER)), true },
	{ "longer", BYTES(ANSWER(7, 3, NBD_MAX_ANSWER + 1)), false },
	{ "4 GiB", BYTES(ANSWER(7, 3, 0xffffffff)), false },
	{ "to another option", BYTES(ANSWER(6, 1, 0)), false },
	{ "another magic", BYTES(U64(1), U32(7), U32(1), U32(0)), false },
};

TEST(answers_have_bounds_and_belong_to_the_question)
{
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		struct answer_header header = { .type = 99 };

		CHECK_EQ(headers[i].what, decode_answer_header(bytes_over(headers[i].at,
		         headers[i].len), NBD_OPT_GO, &header) == NULL, headers[i].good);
		CHECK_EQ(headers[i].what, header.type != 99, headers[i].good);
		for (size_t len = 0; len < headers[i].len; len++)
			CHECK(decode_answer_header(bytes_over(headers[i].at, len), NBD_OPT_GO,
			                           &header) != NULL);
	}
}

static const struct {
	const char *what;
	const uint8_t *at;
	size_t len;
	bool good;
} infos[] = {
	{ "a size", BYTES(U16(0), U64(1 << 20), U16(1)), true },
	{ "size 0", BYTES(U16(0), U64(0), U16(1)), true },
	{ "the largest size", BYTES(U16(0), U64(INT64_MAX), U16(0xffff)), true },
	{ "a size beyond", BYTES(U16(0), U64(UINT64_C(1) << 63), U16(1)), false },
	{ "flags that are none", BYTES(U16(0), U64(512), U16(2)), false },
	{ "block sizes", BYTES(U16(3), U32(1), U32(4096), U32(33554432)), true },
	{ "without a maximum", BYTES(U16(3), U32(4096), U32(4096), U32(0xffffffff)), true },
	{ "the smallest maximum", BYTES(U16(3), U32(512), U32(512), U32(512)), true },
	{ "minimum 0", BYTES(U16(3), U32(0), U32(4096), U32(4096)), false },
	{ "minimum 3", BYTES(U16(3), U32(3), U32(4096), U32(4098)), false },
	{ "minimum 128 KiB", BYTES(U16(3), U32(131072), U32(131072), U32(131072)), false },
	{ "preferred 0", BYTES(U16(3), U32(1), U32(0), U32(4096)), false },
	{ "preferred below minimum", BYTES(U16(3), U32(4096), U32(512), U32(4096)), false },
	{ "preferred 4097", BYTES(U16(3), U32(1), U32(4097), U32(65536)), false },
	{ "maximum below minimum", BYTES(U16(3), U32(4096), U32(4096), U32(0)), false },
	{ "a maximum between blocks", BYTES(U16(3), U32(4096), U32(4096), U32(4097)), false },
};

TEST(information_that_contradicts_itself_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(infos); i++) {
		uint8_t longer[64] = { 0 };
		struct export_facts facts;

		CHECK_EQ(infos[i].what, info(infos[i].at, infos[i].len, &facts) == NULL,
		         infos[i].good);
		for (size_t len = 0; len < infos[i].len; len++)
			CHECK(info(infos[i].at, len, &facts) != NULL);
		memcpy(longer, infos[i].at, infos[i].len);
		CHECK(info(longer, infos[i].len + 1, &facts) != NULL);
	}
}

TEST(what_a_server_says_is_kept)
{
	struct export_facts facts = { 0 };

	CHECK(decode_info(bytes_over(BYTES(U16(0), U64(12345), U16(0x16d))), &facts) == NULL);
	CHECK(decode_info(bytes_over(BYTES(U16(3), U32(1), U32(4096), U32(65536))), &facts) == NULL);
	CHECK(decode_info(bytes_over(BYTES(U16(1), 'n')), &facts) == NULL);
	CHECK(decode_info(bytes_over(BYTES(U16(999), 0, 1, 2)), &facts) == NULL);
	CHECK(facts.has_size && facts.size == 12345 && facts.flags == 0x16d);
	CHECK(facts.minimum == 1 && facts.preferred == 4096 && facts.maximum == 65536);
	CHECK(decode_export_name_reply(bytes_over(BYTES(U64(512), U16(3))), &facts) == NULL);
	CHECK(facts.size == 512 && facts.flags == 3);
	CHECK(decode_export_name_reply(bytes_over(BYTES(U64(512))), &facts) != NULL);
}

TEST(options_are_written_as_the_specification_has_them)
{
	static const uint8_t want[] = { U64(NBD_OPTS_MAGIC), U32(7), U32(10), U32(2), 'd', 'b',
	                                U16(1), U16(3) };
	static const uint8_t name[] = { U64(NBD_OPTS_MAGIC), U32(1), U32(2), 'd', 'b' };
	uint8_t buffer[64];
	struct emit out = emit_into(buffer, sizeof buffer);

	emit_go(&out, span_of("db"));
	CHECK(emit_fits(&out) && out.len == sizeof want && memcmp(buffer, want, out.len) == 0);
	out = emit_into(buffer, sizeof buffer);
	emit_option(&out, NBD_OPT_EXPORT_NAME, span_of("db"));
	CHECK(emit_fits(&out) && out.len == sizeof name && memcmp(buffer, name, out.len) == 0);
}
