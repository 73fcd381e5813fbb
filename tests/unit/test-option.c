/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a client sends in the handshake: every payload as its bytes. */
#include "check.h"

#include <stdlib.h>

#include "base/attr.h"
#include "wire/option.h"

static bool is_text(struct span s, const char *text)
{
	return span_equal(s, span_of(text));
}

/* `len` bytes that a cursor over a short copy cannot run past unseen. */
static struct bytes copy_of(const uint8_t *at, size_t len, uint8_t **ret)
{
	*ret = malloc(len ? len : 1);
	if (!*ret)
		abort();
	if (len)
		memcpy(*ret, at, len);
	return bytes_over(*ret, len);
}

TEST(client_flags_are_known_ones_only)
{
	const struct {
		const char *what;
		const uint8_t *payload;
		size_t len;
		bool good, fixed, no_zeroes;
	} cases[] = {
		{ "none", BYTES(U32(0)), true, false, false },
		{ "fixed", BYTES(U32(1)), true, true, false },
		{ "no zeroes", BYTES(U32(2)), true, false, true },
		{ "both", BYTES(U32(3)), true, true, true },
		{ "unknown", BYTES(U32(4)), false, false, false },
		{ "the highest", BYTES(U32(0x80000001u)), false, false, false },
		{ "too short", BYTES(0, 0, 3), false, false, false },
		{ "too long", BYTES(U32(3), 0), false, false, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct client_flags flags = { false, false };
		struct bytes in = bytes_over(cases[i].payload, cases[i].len);

		CHECK_EQ(cases[i].what, decode_client_flags(in, &flags), cases[i].good);
		CHECK_EQ(cases[i].what, flags.fixed_newstyle, cases[i].fixed);
		CHECK_EQ(cases[i].what, flags.no_zeroes, cases[i].no_zeroes);
	}
}

TEST(option_headers_have_a_magic_and_a_bounded_length)
{
	const struct {
		const char *what;
		const uint8_t *payload;
		size_t len;
		enum option_header_fault want;
	} cases[] = {
		{ "GO", BYTES('I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', U32(7), U32(6)),
		  OPTION_HEADER_OK },
		{ "an unknown option", BYTES(U64(NBD_OPTS_MAGIC), U32(0xffffffffu), U32(0)),
		  OPTION_HEADER_OK },
		{ "32 MiB", BYTES(U64(NBD_OPTS_MAGIC), U32(7), U32(33554432)), OPTION_HEADER_OK },
		{ "one byte more", BYTES(U64(NBD_OPTS_MAGIC), U32(7), U32(33554433)),
		  OPTION_HEADER_TOO_LONG },
		{ "all ones", BYTES(U64(NBD_OPTS_MAGIC), U32(7), U32(0xffffffffu)),
		  OPTION_HEADER_TOO_LONG },
		{ "another magic", BYTES(U64(NBD_OPTS_MAGIC + 1), U32(7), U32(0)),
		  OPTION_HEADER_BAD_MAGIC },
		{ "the server's magic", BYTES(U64(NBD_REP_MAGIC), U32(7), U32(0)),
		  OPTION_HEADER_BAD_MAGIC },
		{ "a short header", BYTES(U64(NBD_OPTS_MAGIC), U32(7)), OPTION_HEADER_BAD_MAGIC },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct option_header header = { 77, 88 };
		struct bytes in = bytes_over(cases[i].payload, cases[i].len);

		CHECK_EQ(cases[i].what, decode_option_header(in, &header), cases[i].want);
		if (cases[i].want != OPTION_HEADER_OK)
			CHECK(header.option == 77 && header.length == 88);
	}
}

TEST(option_header_tells_option_and_length)
{
	static const uint8_t payload[] = { U64(NBD_OPTS_MAGIC), U32(10), U32(0x01020304) };
	struct option_header header = { 0 };
	struct bytes in = bytes_over(payload, sizeof payload);

	CHECK_EQ("", decode_option_header(in, &header), OPTION_HEADER_OK);
	CHECK_EQ("", header.option, NBD_OPT_SET_META_CONTEXT);
	CHECK_EQ("", header.length, 0x01020304);
}

TEST(go_answers)
{
	const struct {
		const char *what;
		const uint8_t *payload;
		size_t len;
		enum nbd_rep want;
	} cases[] = {
		{ "the default export", BYTES(U32(0), U16(0)), NBD_REP_ACK },
		{ "a name", BYTES(U32(2), 'd', 'b', U16(0)), NBD_REP_ACK },
		{ "one info request", BYTES(U32(0), U16(1), U16(3)), NBD_REP_ACK },
		{ "an unknown info", BYTES(U32(0), U16(1), U16(99)), NBD_REP_ACK },
		{ "a name that is not UTF-8", BYTES(U32(1), 0xff, U16(0)), NBD_REP_ACK },
		{ "nothing", NULL, 0, NBD_REP_ERR_INVALID },
		{ "no count at all", BYTES(U32(0)), NBD_REP_ERR_INVALID },
		{ "half a length", BYTES(0, 0), NBD_REP_ERR_INVALID },
		{ "a name past the end", BYTES(U32(3), 'd', 'b', U16(0)), NBD_REP_ERR_INVALID },
		{ "the largest length", BYTES(U32(0xffffffffu), U16(0)), NBD_REP_ERR_INVALID },
		{ "more infos than bytes", BYTES(U32(0), U16(2), U16(3)), NBD_REP_ERR_INVALID },
		{ "fewer infos than bytes", BYTES(U32(0), U16(0), U16(3)), NBD_REP_ERR_INVALID },
		{ "half an info", BYTES(U32(0), U16(1), 0), NBD_REP_ERR_INVALID },
		{ "a byte left over", BYTES(U32(0), U16(1), U16(3), 0), NBD_REP_ERR_INVALID },
		{ "a NUL in the name", BYTES(U32(2), 'd', 0, U16(0)), NBD_REP_ERR_INVALID },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct opt_go go;

		CHECK_EQ(cases[i].what,
		         decode_go(bytes_over(cases[i].payload, cases[i].len), &go),
		         cases[i].want);
	}
}

TEST(go_tells_what_was_asked)
{
	static const uint8_t payload[] = { U32(2), 'd', 'b', U16(4), U16(3), U16(99), U16(0),
	                                   U16(1) };
	struct opt_go go = { 0 };

	CHECK_EQ("", decode_go(bytes_over(payload, sizeof payload), &go), NBD_REP_ACK);
	CHECK(is_text(go.export_name, "db"));
	CHECK(go.wants_block_size && go.wants_name && !go.wants_description);
}

TEST(go_tells_that_a_description_was_asked)
{
	static const uint8_t payload[] = { U32(0), U16(2), U16(2), U16(2) };
	struct opt_go go = { 0 };

	CHECK_EQ("", decode_go(bytes_over(payload, sizeof payload), &go), NBD_REP_ACK);
	CHECK_EQ("", go.export_name.len, 0);
	CHECK(!go.wants_block_size && !go.wants_name && go.wants_description);
}

/* Every prefix of a good payload is bad: no length slips through unchecked. */
TEST(go_every_truncation_is_refused)
{
	static const uint8_t payload[] = { U32(2), 'd', 'b', U16(1), U16(3) };
	struct opt_go go = { .wants_name = true };

	for (size_t len = 0; len < sizeof payload; len++) {
		uint8_t *copy;
		struct bytes in = copy_of(payload, len, &copy);

		CHECK_EQ("prefix", decode_go(in, &go), NBD_REP_ERR_INVALID);
		free(copy);
	}
	CHECK(go.wants_name && !go.wants_block_size);   /* untouched by a refusal */
}

/* A GO payload for a name of `len` bytes. */
static size_t go_with_name(uint8_t *at, size_t len)
{
	const uint8_t length[] = { U32(len) };

	memcpy(at, length, sizeof length);
	memset(at + 4, 'n', len);
	memset(at + 4 + len, 0, 2);
	return 4 + len + 2;
}

TEST(names_have_at_most_4096_bytes)
{
	static uint8_t payload[8192];
	struct opt_go go = { 0 };
	struct span name = { 0 };
	size_t len = go_with_name(payload, 4096);

	CHECK_EQ("", decode_go(bytes_over(payload, len), &go), NBD_REP_ACK);
	CHECK_EQ("", go.export_name.len, 4096);
	len = go_with_name(payload, 4097);
	CHECK_EQ("", decode_go(bytes_over(payload, len), &go), NBD_REP_ERR_INVALID);
	CHECK_EQ("untouched", go.export_name.len, 4096);

	CHECK_EQ("", decode_export_name(bytes_over(payload + 4, 4096), &name), NBD_REP_ACK);
	CHECK_EQ("", name.len, 4096);
	CHECK(decode_export_name(bytes_over(payload + 4, 4097), &name) != NBD_REP_ACK);
	CHECK_EQ("untouched", name.len, 4096);
}

TEST(export_name_is_its_whole_payload)
{
	struct span name = span_of("before");

	CHECK_EQ("", decode_export_name(bytes_over("db", 2), &name), NBD_REP_ACK);
	CHECK(is_text(name, "db"));
	CHECK_EQ("", decode_export_name(bytes_over("", 0), &name), NBD_REP_ACK);
	CHECK_EQ("", name.len, 0);
	name = span_of("before");
	CHECK(decode_export_name(bytes_over("d\0b", 3), &name) != NBD_REP_ACK);
	CHECK(is_text(name, "before"));
}

TEST(meta_context_answers)
{
	const struct {
		const char *what;
		const uint8_t *payload;
		size_t len;
		enum nbd_rep want;
	} cases[] = {
		{ "no query", BYTES(U32(0), U32(0)), NBD_REP_ACK },
		{ "one query", BYTES(U32(1), 'd', U32(1), U32(5), 'b', 'a', 's', 'e', ':'),
		  NBD_REP_ACK },
		{ "an empty query", BYTES(U32(0), U32(1), U32(0)), NBD_REP_ACK },
		{ "nothing", NULL, 0, NBD_REP_ERR_INVALID },
		{ "no count", BYTES(U32(0)), NBD_REP_ERR_INVALID },
		{ "the largest name", BYTES(U32(0xffffffffu), U32(0)), NBD_REP_ERR_INVALID },
		{ "too few queries", BYTES(U32(0), U32(2), U32(1), 'a'), NBD_REP_ERR_INVALID },
		{ "too many queries", BYTES(U32(0), U32(1), U32(1), 'a', U32(1), 'b'),
		  NBD_REP_ERR_INVALID },
		{ "the largest count", BYTES(U32(0), U32(0xffffffffu), U32(0)),
		  NBD_REP_ERR_INVALID },
		{ "a query past the end", BYTES(U32(0), U32(1), U32(2), 'a'), NBD_REP_ERR_INVALID },
		{ "the largest query", BYTES(U32(0), U32(1), U32(0xffffffffu), 'a'),
		  NBD_REP_ERR_INVALID },
		{ "a byte left over", BYTES(U32(0), U32(0), 0), NBD_REP_ERR_INVALID },
		{ "a byte left over behind", BYTES(U32(0), U32(1), U32(1), 'a', 0),
		  NBD_REP_ERR_INVALID },
		{ "a NUL in the name", BYTES(U32(1), 0, U32(0)), NBD_REP_ERR_INVALID },
		{ "a NUL in a query", BYTES(U32(0), U32(1), U32(2), 'a', 0), NBD_REP_ERR_INVALID },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct opt_meta_context meta = { .n_queries = 99 };
		struct bytes in = bytes_over(cases[i].payload, cases[i].len);

		CHECK_EQ(cases[i].what, decode_meta_context(in, &meta), cases[i].want);
		if (cases[i].want != NBD_REP_ACK)
			CHECK_EQ(cases[i].what, meta.n_queries, 99);
	}
}

TEST(meta_context_every_truncation_is_refused)
{
	static const uint8_t payload[] = { U32(2), 'd', 'b', U32(2), U32(1), 'a', U32(2), 'b',
	                                   'c' };
	struct opt_meta_context meta = { .n_queries = 99 };

	for (size_t len = 0; len < sizeof payload; len++) {
		uint8_t *copy;
		struct bytes in = copy_of(payload, len, &copy);

		CHECK_EQ("prefix", decode_meta_context(in, &meta), NBD_REP_ERR_INVALID);
		free(copy);
	}
	CHECK_EQ("untouched", meta.n_queries, 99);
	CHECK_EQ("untouched", meta.export_name.len, 0);
}

TEST(queries_come_one_by_one)
{
	static const uint8_t payload[] = { U32(2), 'd', 'b', U32(3), U32(1), 'a', U32(0), U32(2),
	                                   'b', 'c' };
	struct opt_meta_context meta;
	struct span query = { 0 };

	CHECK_EQ("", decode_meta_context(bytes_over(payload, sizeof payload), &meta), NBD_REP_ACK);
	CHECK(is_text(meta.export_name, "db"));
	CHECK_EQ("", meta.n_queries, 3);
	CHECK(next_query(&meta, &query) && is_text(query, "a"));
	CHECK(next_query(&meta, &query) && is_text(query, ""));
	CHECK(next_query(&meta, &query) && is_text(query, "bc"));
	CHECK(!next_query(&meta, &query));
	CHECK(!next_query(&meta, &query) && is_text(query, "bc"));
}

/* A query of 4096 bytes is a query, one of 4097 is skipped, whatever is in it. */
TEST(queries_that_are_too_long_are_skipped)
{
	static const uint8_t head[] = { U32(0), U32(3), U32(4097) };
	static const uint8_t second[] = { U32(4096) };
	static const uint8_t third[] = { U32(1), 'c' };
	static uint8_t payload[16384];
	struct opt_meta_context meta;
	struct span query = { 0 };
	size_t len = 0;

	memcpy(payload, head, sizeof head);
	len += sizeof head + 4097;      /* all NUL */
	memcpy(payload + len, second, sizeof second);
	len += sizeof second;
	memset(payload + len, 'q', 4096);
	len += 4096;
	memcpy(payload + len, third, sizeof third);
	len += sizeof third;

	CHECK_EQ("", decode_meta_context(bytes_over(payload, len), &meta), NBD_REP_ACK);
	CHECK_EQ("", meta.n_queries, 3);
	CHECK(next_query(&meta, &query));
	CHECK_EQ("", query.len, 4096);
	CHECK(next_query(&meta, &query) && is_text(query, "c"));
	CHECK(!next_query(&meta, &query));
}

TEST(queries_match)
{
	static const struct {
		const char *query, *name;
		bool in_list, in_set;
	} cases[] = {
		{ "base:allocation", "base:allocation", true, true },
		{ "base:", "base:allocation", true, false },
		{ "qemu:", "qemu:allocation-depth", true, false },
		{ "qemu:", "qemu:dirty-bitmap:b", true, false },
		{ "qemu:dirty-bitmap:", "qemu:dirty-bitmap:b", true, false },
		{ "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:b", true, true },
		{ "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:bc", false, false },
		{ "qemu:dirty-bitmap:bc", "qemu:dirty-bitmap:b", false, false },
		{ "qemu:dirty-bitmap:", "qemu:allocation-depth", false, false },
		{ "qemu:dirty-bitmap:", "qemu:dirty-bitmap:", true, false },
		{ "qemu:allocation-depth", "qemu:allocation-depth", true, true },
		{ "base:", "qemu:allocation-depth", false, false },
		{ "qemu:", "base:allocation", false, false },
		{ "", "base:allocation", false, false },
		{ "", "", false, false },
		{ "base", "base:allocation", false, false },
		{ ":", "base:allocation", false, false },
		{ "base:a", "base:allocation", false, false },
		{ "BASE:ALLOCATION", "base:allocation", false, false },
		{ "base:allocation ", "base:allocation", false, false },
		{ "x-other:", "base:allocation", false, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct span query = span_of(cases[i].query);
		struct span name = span_of(cases[i].name);

		CHECK_EQ(cases[i].query, query_matches(query, name, true), cases[i].in_list);
		CHECK_EQ(cases[i].query, query_matches(query, name, false), cases[i].in_set);
	}
}

TEST(wildcards_do_not_read_past_a_shorter_name)
{
	uint8_t *name;

	(void) copy_of((const uint8_t *) "qemu:dirty", 10, &name);
	CHECK(!query_matches(span_of("qemu:dirty-bitmap:"), (struct span) { name, 10 }, true));
	CHECK(query_matches(span_of("qemu:"), (struct span) { name, 10 }, true));
	free(name);
}

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static bool lies_in(struct span s, const uint8_t *at, size_t len)
{
	return s.len == 0 || (s.at >= at && s.len <= len && s.at <= at + len - s.len);
}

static void decode_mutant(const uint8_t *at, size_t len)
{
	struct opt_go go = { 0 };
	struct opt_meta_context meta = { 0 };
	struct span query;

	if (decode_go(bytes_over(at, len), &go) == NBD_REP_ACK)
		CHECK(lies_in(go.export_name, at, len));
	if (decode_meta_context(bytes_over(at, len), &meta) != NBD_REP_ACK)
		return;
	CHECK(lies_in(meta.export_name, at, len));
	for (uint32_t n = 0; next_query(&meta, &query); n++) {
		CHECK(lies_in(query, at, len));
		CHECK(n < meta.n_queries);
	}
}

TEST(mutations_stay_inside_their_bytes)
{
	static const uint8_t seed[] = { U32(2), 'd', 'b', U32(2), U32(1), 'a', U32(2), 'b', 'c' };
	uint32_t state = 20240601;

	for (unsigned i = 0; i < 200000; i++) {
		size_t len = next_random(&state) % (sizeof seed + 1);
		uint8_t *copy;
		(void) copy_of(seed, len, &copy);

		for (unsigned n = next_random(&state) % 4; len && n; n--)
			copy[next_random(&state) % len] = (uint8_t) (next_random(&state) % 8);
		decode_mutant(copy, len);
		free(copy);
	}
}
