/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoders of the handshake.  What they are given was checked by whoever read it, so
 * nothing is refused here; what is too long for `out` shows in emit_fits().
 */
#include "wire/option-reply.h"

void emit_greeting(struct emit *out)
{
	emit_u64(out, NBD_MAGIC);
	emit_u64(out, NBD_OPTS_MAGIC);
	emit_u16(out, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

/* The header of a reply; `length` bytes follow it. */
static void emit_header(struct emit *out, uint32_t option, enum nbd_rep type, size_t length)
{
	emit_u64(out, NBD_REP_MAGIC);
	emit_u32(out, option);
	emit_u32(out, (uint32_t) type);
	emit_u32(out, (uint32_t) length);
}

void emit_option_reply(struct emit *out, uint32_t option, enum nbd_rep type)
{
	emit_header(out, option, type, 0);
}

void emit_option_error(struct emit *out, uint32_t option, enum nbd_rep type, const char *sentence)
{
	struct span text = span_cut(span_of(sentence), NBD_MAX_STRING);

	emit_header(out, option, type, text.len);
	emit_span(out, text);
}

void emit_rep_server(struct emit *out, uint32_t option, struct span name, struct span description)
{
	emit_header(out, option, NBD_REP_SERVER, sizeof(uint32_t) + name.len + description.len);
	emit_u32(out, (uint32_t) name.len);
	emit_span(out, name);
	emit_span(out, description);
}

/* The header of an NBD_REP_INFO with its type; `length` bytes follow. */
static void emit_info(struct emit *out, uint32_t option, enum nbd_info info, size_t length)
{
	emit_header(out, option, NBD_REP_INFO, sizeof(uint16_t) + length);
	emit_u16(out, (uint16_t) info);
}

void emit_info_export(struct emit *out, uint32_t option, uint64_t size, uint16_t flags)
{
	emit_info(out, option, NBD_INFO_EXPORT, sizeof size + sizeof flags);
	emit_u64(out, size);
	emit_u16(out, flags);
}

void emit_info_name(struct emit *out, uint32_t option, struct span name)
{
	emit_info(out, option, NBD_INFO_NAME, name.len);
	emit_span(out, name);
}

void emit_info_description(struct emit *out, uint32_t option, struct span description)
{
	emit_info(out, option, NBD_INFO_DESCRIPTION, description.len);
	emit_span(out, description);
}

void emit_info_block_size(struct emit *out, uint32_t option, uint32_t minimum,
                          uint32_t preferred, uint32_t maximum)
{
	emit_info(out, option, NBD_INFO_BLOCK_SIZE, 3 * sizeof(uint32_t));
	emit_u32(out, minimum);
	emit_u32(out, preferred);
	emit_u32(out, maximum);
}

void emit_rep_meta_context(struct emit *out, uint32_t option, uint32_t id, struct span name)
{
	emit_header(out, option, NBD_REP_META_CONTEXT, sizeof id + name.len);
	emit_u32(out, id);
	emit_span(out, name);
}

void emit_export_name_reply(struct emit *out, uint64_t size, uint16_t flags, bool no_zeroes)
{
	emit_u64(out, size);
	emit_u16(out, flags);
	if (!no_zeroes)
		emit_zeroes(out, NBD_EXPORT_NAME_ZEROES);
}
