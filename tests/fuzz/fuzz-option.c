/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The decoders of the handshake.  The first byte says which; the rest is the payload.
 * What is accepted is written down again and must be accepted again, as the same.
 */
#include "fuzz.h"

#include "base/attr.h"
#include "base/emit.h"
#include "wire/option-reply.h"
#include "wire/option.h"

static uint8_t buffer[1u << 20];

/* The bytes of an object before a refusal must be there after it. */
#define UNTOUCHED 0x5a

static bool is_untouched(const void *at, size_t len)
{
	const uint8_t *byte = at;

	for (size_t i = 0; i < len; i++)
		if (byte[i] != UNTOUCHED)
			return false;
	return true;
}

static void require_name(struct span name, const uint8_t *at, size_t len)
{
	REQUIRE(lies_in(name, at, len));
	REQUIRE(name.len <= NBD_MAX_STRING);
	REQUIRE(name.len == 0 || !memchr(name.at, '\0', name.len));
}

static void fuzz_client_flags(const uint8_t *at, size_t len)
{
	struct client_flags flags = { false, false };

	if (!decode_client_flags(bytes_over(at, len), &flags)) {
		REQUIRE(!flags.fixed_newstyle && !flags.no_zeroes);
		return;
	}
	REQUIRE(len == NBD_CLIENT_FLAGS_SIZE);
	REQUIRE(at[0] == 0 && at[1] == 0 && at[2] == 0);
	REQUIRE(at[3] == (flags.fixed_newstyle | flags.no_zeroes << 1));
}

static void fuzz_option_header(const uint8_t *at, size_t len)
{
	struct emit out = emit_into(buffer, sizeof buffer);
	struct option_header header;

	memset(&header, UNTOUCHED, sizeof header);
	if (decode_option_header(bytes_over(at, len), &header) != OPTION_HEADER_OK) {
		REQUIRE(is_untouched(&header, sizeof header));
		return;
	}
	REQUIRE(header.length <= NBD_MAX_OPTION);
	emit_u64(&out, NBD_OPTS_MAGIC);
	emit_u32(&out, header.option);
	emit_u32(&out, header.length);
	REQUIRE(out.len == len && memcmp(buffer, at, len) == 0);
}

static void emit_info_if(struct emit *out, bool wanted, enum nbd_info info)
{
	if (wanted)
		emit_u16(out, (uint16_t) info);
}

static void fuzz_go(const uint8_t *at, size_t len)
{
	struct emit out = emit_into(buffer, sizeof buffer);
	struct opt_go go, again;

	memset(&go, UNTOUCHED, sizeof go);
	if (decode_go(bytes_over(at, len), &go) != NBD_REP_ACK) {
		REQUIRE(is_untouched(&go, sizeof go));
		return;
	}
	require_name(go.export_name, at, len);
	REQUIRE((len - 6 - go.export_name.len) % 2 == 0);

	emit_u32(&out, (uint32_t) go.export_name.len);
	emit_span(&out, go.export_name);
	emit_u16(&out, (uint16_t) (go.wants_name + go.wants_description + go.wants_block_size));
	emit_info_if(&out, go.wants_name, NBD_INFO_NAME);
	emit_info_if(&out, go.wants_description, NBD_INFO_DESCRIPTION);
	emit_info_if(&out, go.wants_block_size, NBD_INFO_BLOCK_SIZE);
	REQUIRE(decode_go(bytes_over(buffer, out.len), &again) == NBD_REP_ACK);
	REQUIRE(span_equal(go.export_name, again.export_name));
	REQUIRE(go.wants_name == again.wants_name);
	REQUIRE(go.wants_description == again.wants_description);
	REQUIRE(go.wants_block_size == again.wants_block_size);
}

static void fuzz_export_name(const uint8_t *at, size_t len)
{
	static uint8_t reply[OPTION_REPLY_MAX];
	struct emit out = emit_into(reply, sizeof reply);
	struct span name;

	memset(&name, UNTOUCHED, sizeof name);
	if (decode_export_name(bytes_over(at, len), &name) != NBD_REP_ACK) {
		REQUIRE(is_untouched(&name, sizeof name));
		return;
	}
	require_name(name, at, len);
	REQUIRE(name.len == len);

	emit_rep_server(&out, NBD_OPT_LIST, name, name);
	REQUIRE(emit_fits(&out));
	REQUIRE(out.len == NBD_OPTION_REPLY_HEADER_SIZE + 4 + 2 * len);
}

/* A SET selects exactly what it names; a LIST shows that, and by wildcards more. */
static void require_matching(struct span query, struct span name)
{
	bool in_list = query_matches(query, name, true);
	bool in_set = query_matches(query, name, false);

	REQUIRE(!in_set || (in_list && span_equal(query, name)));
	REQUIRE(!in_list || in_set || query.at[query.len - 1] == ':');
	REQUIRE(!in_list || memcmp(query.at, name.at, query.len) == 0);
}

static void require_queries(const struct opt_meta_context *meta, const uint8_t *at, size_t len)
{
	struct opt_meta_context from = *meta;
	struct span last = span_of(NBD_CONTEXT_ALLOCATION_DEPTH);
	struct span query;
	uint32_t n = 0;

	while (next_query(&from, &query)) {
		require_name(query, at, len);
		require_matching(query, last);
		require_matching(last, query);
		last = query;
		n++;
	}
	REQUIRE(n <= meta->n_queries);
	REQUIRE(!next_query(&from, &query));
}

static void fuzz_meta_context(const uint8_t *at, size_t len)
{
	struct emit out = emit_into(buffer, sizeof buffer);
	struct opt_meta_context meta;

	memset(&meta, UNTOUCHED, sizeof meta);
	if (decode_meta_context(bytes_over(at, len), &meta) != NBD_REP_ACK) {
		REQUIRE(is_untouched(&meta, sizeof meta));
		return;
	}
	require_name(meta.export_name, at, len);
	require_queries(&meta, at, len);

	emit_u32(&out, (uint32_t) meta.export_name.len);
	emit_span(&out, meta.export_name);
	emit_u32(&out, meta.n_queries);
	emit_span(&out, (struct span) { meta.queries.at, meta.queries.left });
	REQUIRE(!emit_fits(&out) || (out.len == len && memcmp(buffer, at, len) == 0));
}

static void (*const targets[])(const uint8_t *at, size_t len) = {
	fuzz_client_flags, fuzz_option_header, fuzz_go, fuzz_export_name, fuzz_meta_context,
};

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	if (len > 0)
		targets[at[0] % ARRAY_LEN(targets)](at + 1, len - 1);
	return 0;
}
