/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What we answer in the handshake, byte for byte. */
#include "check.h"

#include "base/attr.h"
#include "wire/option-reply.h"

#define HEADER(option, type, length) U64(NBD_REP_MAGIC), U32(option), U32(type), U32(length)

static uint8_t buffer[OPTION_REPLY_MAX];

static struct emit fresh(void)
{
	memset(buffer, 0xee, sizeof buffer);
	return emit_into(buffer, sizeof buffer);
}

static void expect(const char *what, const struct emit *out, const uint8_t *want, size_t len)
{
	CHECK(emit_fits(out));
	CHECK_EQ(what, out->len, len);
	CHECK_EQ(what, memcmp(buffer, want, len), 0);
}

TEST(greeting)
{
	struct emit out = fresh();

	emit_greeting(&out);
	expect("greeting", &out, BYTES('N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V',
	                               'E', 'O', 'P', 'T', U16(3)));
	CHECK_EQ("", out.len, NBD_GREETING_SIZE);
}

TEST(replies_without_words)
{
	struct emit out = fresh();

	emit_option_reply(&out, NBD_OPT_ABORT, NBD_REP_ACK);
	expect("ACK", &out, BYTES(HEADER(2, 1, 0)));
	out = fresh();
	emit_option_reply(&out, 0xfedcba98u, NBD_REP_ERR_UNSUP);
	expect("UNSUP", &out, BYTES(HEADER(0xfedcba98u, 0x80000001u, 0)));
}

TEST(errors_carry_a_sentence)
{
	struct emit out = fresh();

	emit_option_error(&out, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no db");
	expect("error", &out, BYTES(HEADER(7, 0x80000006u, 5), 'n', 'o', ' ', 'd', 'b'));
	out = fresh();
	emit_option_error(&out, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "");
	expect("empty", &out, BYTES(HEADER(7, 0x80000006u, 0)));
}

/* "é" has two bytes, and 4096 is in the middle of one. */
TEST(long_sentences_are_cut_between_characters)
{
	static char sentence[8192] = "x";
	struct emit out = fresh();

	for (size_t i = 1; i + 2 < sizeof sentence; i += 2)
		memcpy(sentence + i, "\xc3\xa9", 2);
	emit_option_error(&out, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, sentence);
	CHECK(emit_fits(&out));
	CHECK_EQ("", out.len, NBD_OPTION_REPLY_HEADER_SIZE + 4095);
	CHECK_EQ("", buffer[18] << 8 | buffer[19], 4095);
	CHECK_EQ("", buffer[out.len - 1], 0xa9);
}

TEST(servers_are_named_and_described)
{
	struct emit out = fresh();

	emit_rep_server(&out, NBD_OPT_LIST, span_of("db"), span_of("the db"));
	expect("described", &out, BYTES(HEADER(3, 2, 12), U32(2), 'd', 'b', 't', 'h', 'e', ' ', 'd',
	                                'b'));
	out = fresh();
	emit_rep_server(&out, NBD_OPT_LIST, span_of(""), span_of(""));
	expect("empty", &out, BYTES(HEADER(3, 2, 4), U32(0)));
}

TEST(infos)
{
	struct emit out = fresh();

	emit_info_export(&out, NBD_OPT_GO, 0x7ffffffffffffe00ull, 0x8d03);
	expect("export", &out, BYTES(HEADER(7, 3, 12), U16(0), U64(0x7ffffffffffffe00ull),
	                             U16(0x8d03)));
	out = fresh();
	emit_info_name(&out, NBD_OPT_INFO, span_of("db"));
	expect("name", &out, BYTES(HEADER(6, 3, 4), U16(1), 'd', 'b'));
	out = fresh();
	emit_info_description(&out, NBD_OPT_INFO, span_of("d"));
	expect("description", &out, BYTES(HEADER(6, 3, 3), U16(2), 'd'));
	out = fresh();
	emit_info_block_size(&out, NBD_OPT_GO, 512, 4096, 33554432);
	expect("block size", &out, BYTES(HEADER(7, 3, 14), U16(3), U32(512), U32(4096),
	                                 U32(33554432)));
}

TEST(contexts_have_identifiers)
{
	struct emit out = fresh();

	emit_rep_meta_context(&out, NBD_OPT_SET_META_CONTEXT, 2, span_of("a:b"));
	expect("context", &out, BYTES(HEADER(10, 4, 7), U32(2), 'a', ':', 'b'));
}

TEST(export_name_is_answered_with_or_without_zeroes)
{
	static const uint8_t want[10 + 124] = { U64(512), U16(0x0103) };
	struct emit out = fresh();

	emit_export_name_reply(&out, 512, 0x0103, true);
	expect("no zeroes", &out, want, 10);
	out = fresh();
	emit_export_name_reply(&out, 512, 0x0103, false);
	expect("zeroes", &out, want, sizeof want);
}

TEST(the_largest_reply_fits_its_buffer)
{
	static uint8_t name[NBD_MAX_STRING];
	struct span longest = { .at = name, .len = sizeof name };
	struct emit out = fresh();

	emit_rep_server(&out, NBD_OPT_LIST, longest, longest);
	CHECK(emit_fits(&out));
	out = fresh();
	emit_rep_meta_context(&out, NBD_OPT_LIST_META_CONTEXT, 0, longest);
	CHECK(emit_fits(&out));
}

TEST(what_does_not_fit_is_told)
{
	struct emit out = emit_into(buffer, NBD_OPTION_REPLY_HEADER_SIZE + 1);

	emit_option_error(&out, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no");
	CHECK(!emit_fits(&out));
}
