/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a client sends in the handshake: bytes to structures.
 *
 * Decoders are pure.  They return NBD_REP_ACK, or the error reply that the client has
 * earned, and then leave *ret untouched.  Spans point into the payload.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "wire/nbd.h"

/* The client's 32 flags after the greeting.  False when any unknown flag is set. */
struct client_flags {
	bool fixed_newstyle;
	bool no_zeroes;
};
bool decode_client_flags(struct bytes in, struct client_flags *ret);

/* "IHAVEOPT", option, length.  False for a wrong magic or a length above NBD_MAX_OPTION:
 * both end the connection.  `in` holds NBD_OPTION_HEADER_SIZE bytes. */
struct option_header {
	uint32_t option;
	uint32_t length;
};
enum option_header_fault {
	OPTION_HEADER_OK,
	OPTION_HEADER_BAD_MAGIC,
	OPTION_HEADER_TOO_LONG,
};
enum option_header_fault decode_option_header(struct bytes in, struct option_header *ret);

/*
 * NBD_OPT_INFO and NBD_OPT_GO: u32 name length, name, u16 count, count times u16 type.
 * Unknown information types are ignored.  Names above NBD_MAX_STRING, an embedded NUL,
 * lengths that do not match: NBD_REP_ERR_INVALID.
 */
struct opt_go {
	struct span export_name;
	bool wants_name;
	bool wants_description;
	bool wants_block_size;
};
enum nbd_rep decode_go(struct bytes in, struct opt_go *ret);

/* NBD_OPT_EXPORT_NAME: the payload is the name.  The only refusal is to close, so
 * anything but NBD_REP_ACK means that. */
enum nbd_rep decode_export_name(struct bytes in, struct span *ret_name);

/*
 * NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: u32 name length, name, u32
 * count, then count times a u32 length and a query.
 *
 * The whole payload is checked first; the queries are then taken one by one with
 * next_query(), which skips those above NBD_MAX_STRING bytes (they match nothing).
 */
struct opt_meta_context {
	struct span export_name;
	uint32_t n_queries;             /* as counted by the client; 0 is "all" for LIST */
	struct bytes queries;           /* for next_query() */
};
enum nbd_rep decode_meta_context(struct bytes in, struct opt_meta_context *ret);
bool next_query(struct opt_meta_context *from, struct span *ret_query);

/*
 * Whether one query asks for the context `name` ("base:allocation").  `listing`: for
 * NBD_OPT_LIST_META_CONTEXT, where "base:", "qemu:" and "qemu:dirty-bitmap:" match all
 * that begins so; in NBD_OPT_SET_META_CONTEXT wildcards match nothing.
 */
bool query_matches(struct span query, struct span name, bool listing);
