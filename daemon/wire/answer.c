/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes of the handshake that a client sends and gets.  Refuses a server that is no NBD server,
 * that speaks the protocol of before 2011, and numbers that contradict each other.
 */
#include "wire/answer.h"

#include <stddef.h>

#define OLD_STYLE_MAGIC 0x0000420281861253ull

const char *decode_greeting(struct bytes in, uint16_t *ret_flags)
{
	uint64_t magic = take_u64(&in), style = take_u64(&in);
	uint16_t flags = take_u16(&in);

	if (!bytes_all_taken(&in) || magic != NBD_MAGIC)
		return "it is no NBD server: the greeting is another protocol's";
	if (style == OLD_STYLE_MAGIC)
		return "the server speaks only the oldest form of the protocol (oldstyle)";
	if (style != NBD_OPTS_MAGIC)
		return "it is no NBD server: the greeting is broken";
	if (!(flags & NBD_FLAG_FIXED_NEWSTYLE))
		return "the server is too old: it has no fixed newstyle handshake";
	*ret_flags = flags;
	return NULL;
}

void emit_client_flags(struct emit *out, uint32_t flags)
{
	emit_u32(out, flags);
}

void emit_option(struct emit *out, uint32_t option, struct span payload)
{
	emit_u64(out, NBD_OPTS_MAGIC);
	emit_u32(out, option);
	emit_u32(out, (uint32_t) payload.len);
	emit_span(out, payload);
}

void emit_go(struct emit *out, struct span name)
{
	emit_u64(out, NBD_OPTS_MAGIC);
	emit_u32(out, NBD_OPT_GO);
	emit_u32(out, (uint32_t) (4 + name.len + 2 + 2));
	emit_u32(out, (uint32_t) name.len);
	emit_span(out, name);
	emit_u16(out, 1);
	emit_u16(out, NBD_INFO_BLOCK_SIZE);
}

const char *decode_answer_header(struct bytes in, uint32_t option, struct answer_header *ret)
{
	struct answer_header header;
	uint64_t magic = take_u64(&in);
	uint32_t about = take_u32(&in);

	header.type = take_u32(&in);
	header.length = take_u32(&in);
	if (!bytes_all_taken(&in) || magic != NBD_REP_MAGIC)
		return "the server's answer is broken";
	if (about != option)
		return "the server answers what was not asked";
	if (header.length > NBD_MAX_ANSWER)
		return "the server's answer is too long";
	*ret = header;
	return NULL;
}

static const char *check_size(uint64_t size, uint16_t flags)
{
	if (!(flags & NBD_FLAG_HAS_FLAGS))
		return "the server's flags are broken";
	if (size > INT64_MAX)
		return "the server's size is beyond all devices";
	return NULL;
}

static const char *take_size(struct bytes *in, struct export_facts *facts)
{
	uint64_t size = take_u64(in);
	uint16_t flags = take_u16(in);
	const char *fault;

	if (!bytes_all_taken(in))
		return "the server's size has the wrong length";
	fault = check_size(size, flags);
	if (fault)
		return fault;
	facts->size = size;
	facts->flags = flags;
	facts->has_size = true;
	return NULL;
}

static bool is_power_of_two(uint32_t n)
{
	return n && (n & (n - 1)) == 0;
}

/* The specification: minimum to 64 KiB, preferred at least that and 512, both powers of two; the
 * maximum a multiple of the minimum, or 4 GiB - 1. */
static const char *take_block_sizes(struct bytes *in, struct export_facts *facts)
{
	uint32_t minimum = take_u32(in), preferred = take_u32(in), maximum = take_u32(in);

	if (!bytes_all_taken(in))
		return "the server's block sizes have the wrong length";
	if (!is_power_of_two(minimum) || minimum > 65536 || !is_power_of_two(preferred) ||
	    preferred < minimum || maximum < minimum ||
	    (maximum != UINT32_MAX && maximum % minimum))
		return "the server's block sizes contradict each other";
	facts->minimum = minimum;
	facts->preferred = preferred;
	facts->maximum = maximum;
	return NULL;
}

const char *decode_info(struct bytes in, struct export_facts *facts)
{
	uint16_t kind = take_u16(&in);

	if (in.overrun)
		return "the server's information has no kind";
	if (kind == NBD_INFO_EXPORT)
		return take_size(&in, facts);
	if (kind == NBD_INFO_BLOCK_SIZE)
		return take_block_sizes(&in, facts);
	return NULL;
}

const char *decode_export_name_reply(struct bytes in, struct export_facts *facts)
{
	return take_size(&in, facts);
}
