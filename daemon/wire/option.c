/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoders of the handshake.  They look at bytes and nothing else: whether an export
 * exists, or an option may come now, is the negotiator's to say.
 */
#include "wire/option.h"

#include "base/attr.h"

bool decode_client_flags(struct bytes in, struct client_flags *ret)
{
	uint32_t flags = take_u32(&in);

	if (!bytes_all_taken(&in))
		return false;
	if (flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
		return false;

	ret->fixed_newstyle = flags & NBD_FLAG_C_FIXED_NEWSTYLE;
	ret->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	return true;
}

enum option_header_fault decode_option_header(struct bytes in, struct option_header *ret)
{
	struct option_header header;
	uint64_t magic;

	magic = take_u64(&in);
	header.option = take_u32(&in);
	header.length = take_u32(&in);

	if (!bytes_all_taken(&in) || magic != NBD_OPTS_MAGIC)
		return OPTION_HEADER_BAD_MAGIC;
	if (header.length > NBD_MAX_OPTION)
		return OPTION_HEADER_TOO_LONG;
	*ret = header;
	return OPTION_HEADER_OK;
}

/* A NUL would make the string that is compared differ from the one that is shown. */
static bool has_nul(struct span s)
{
	return s.len && memchr(s.at, '\0', s.len);
}

static enum nbd_rep check_name(struct span name)
{
	if (name.len > NBD_MAX_STRING || has_nul(name))
		return NBD_REP_ERR_INVALID;
	return NBD_REP_ACK;
}

static void note_info(struct opt_go *go, uint16_t info)
{
	switch (info) {
	case NBD_INFO_NAME:
		go->wants_name = true;
		break;
	case NBD_INFO_DESCRIPTION:
		go->wants_description = true;
		break;
	case NBD_INFO_BLOCK_SIZE:
		go->wants_block_size = true;
		break;
	default:
		/* NBD_INFO_EXPORT is sent anyway; unknown ones must be ignored. */
		break;
	}
}

enum nbd_rep decode_go(struct bytes in, struct opt_go *ret)
{
	struct opt_go go = { 0 };
	struct bytes infos;
	enum nbd_rep rep;

	go.export_name = take_span(&in, take_u32(&in));
	infos = take_bytes(&in, take_u16(&in) * sizeof(uint16_t));
	if (!bytes_all_taken(&in))
		return NBD_REP_ERR_INVALID;

	while (bytes_left(&infos))
		note_info(&go, take_u16(&infos));

	rep = check_name(go.export_name);
	if (rep == NBD_REP_ACK)
		*ret = go;
	return rep;
}

enum nbd_rep decode_export_name(struct bytes in, struct span *ret_name)
{
	struct span name = take_span(&in, in.left);
	enum nbd_rep rep = check_name(name);

	if (rep == NBD_REP_ACK)
		*ret_name = name;
	return rep;
}

/* Whether `in` is exactly `n` queries, each with its length.  Those that are too long are
 * not looked at: they are skipped later, and may hold anything. */
static bool check_queries(struct bytes in, uint32_t n)
{
	uint32_t n_seen = 0;

	while (bytes_left(&in)) {
		struct span query = take_span(&in, take_u32(&in));

		if (query.len <= NBD_MAX_STRING && has_nul(query))
			return false;
		n_seen++;
	}
	return bytes_all_taken(&in) && n_seen == n;
}

enum nbd_rep decode_meta_context(struct bytes in, struct opt_meta_context *ret)
{
	struct opt_meta_context meta = { 0 };
	enum nbd_rep rep;

	meta.export_name = take_span(&in, take_u32(&in));
	meta.n_queries = take_u32(&in);
	meta.queries = take_bytes(&in, bytes_left(&in));
	if (!bytes_all_taken(&in) || !check_queries(meta.queries, meta.n_queries))
		return NBD_REP_ERR_INVALID;

	rep = check_name(meta.export_name);
	if (rep == NBD_REP_ACK)
		*ret = meta;
	return rep;
}

bool next_query(struct opt_meta_context *from, struct span *ret_query)
{
	while (bytes_left(&from->queries)) {
		struct span query = take_span(&from->queries, take_u32(&from->queries));

		if (query.len > NBD_MAX_STRING)
			continue;
		*ret_query = query;
		return true;
	}
	return false;
}

/* In a LIST these ask for every context whose name begins so; in a SET for none. */
static const char *const wildcards[] = { "base:", "qemu:", NBD_CONTEXT_DIRTY_BITMAP };

static bool is_wildcard(struct span query)
{
	for (size_t i = 0; i < ARRAY_LEN(wildcards); i++)
		if (span_equal(query, span_of(wildcards[i])))
			return true;
	return false;
}

bool query_matches(struct span query, struct span name, bool listing)
{
	if (query.len == 0 || query.len > name.len)
		return false;
	if (!is_wildcard(query))
		return span_equal(query, name);
	return listing && memcmp(query.at, name.at, query.len) == 0;
}
