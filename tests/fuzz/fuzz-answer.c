/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a server answers in the handshake.  The first byte says which decoder; a refusal leaves its
 * output alone, and what is accepted keeps the specification's bounds.
 */
#include "fuzz.h"

#include "wire/answer.h"

static void fuzz_greeting(const uint8_t *at, size_t len)
{
	uint16_t flags = 0xabcd;

	if (decode_greeting(bytes_over(at, len), &flags))
		REQUIRE(flags == 0xabcd);
	else
		REQUIRE(len == NBD_GREETING_SIZE && flags & NBD_FLAG_FIXED_NEWSTYLE);
}

static void fuzz_header(const uint8_t *at, size_t len)
{
	struct answer_header header = { .type = 99, .length = 99 };

	if (decode_answer_header(bytes_over(at, len), NBD_OPT_GO, &header))
		REQUIRE(header.type == 99 && header.length == 99);
	else
		REQUIRE(len == NBD_OPTION_REPLY_HEADER_SIZE && header.length <= NBD_MAX_ANSWER);
}

static void fuzz_info(const uint8_t *at, size_t len)
{
	struct export_facts facts = { 0 };

	if (decode_info(bytes_over(at, len), &facts)) {
		REQUIRE(!facts.has_size && facts.minimum == 0 && facts.maximum == 0);
		return;
	}
	REQUIRE(facts.size <= INT64_MAX);
	REQUIRE(facts.minimum <= 65536 && facts.minimum <= facts.preferred);
	REQUIRE(facts.minimum <= facts.maximum);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	static void (*const targets[])(const uint8_t *at, size_t len) = {
		fuzz_greeting, fuzz_header, fuzz_info,
	};

	if (len > 0)
		targets[at[0] % 3](at + 1, len - 1);
	return 0;
}
