/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What we answer in the handshake: structures to bytes.
 *
 * Each function appends one whole reply to `out`; ask emit_fits() when all are in.
 * OPTION_REPLY_MAX bytes of room hold any single reply.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/emit.h"
#include "wire/nbd.h"

#define OPTION_REPLY_MAX (NBD_OPTION_REPLY_HEADER_SIZE + 8u + 2u * NBD_MAX_STRING)

void emit_greeting(struct emit *out);

/* NBD_REP_ACK, or an error without words. */
void emit_option_reply(struct emit *out, uint32_t option, enum nbd_rep type);

/* An error with a sentence in UTF-8, cut to NBD_MAX_STRING bytes. */
void emit_option_error(struct emit *out, uint32_t option, enum nbd_rep type, const char *sentence);

/* NBD_REP_SERVER: one export of a LIST.  An empty description is left out. */
void emit_rep_server(struct emit *out, uint32_t option, struct span name, struct span description);

/* NBD_REP_INFO in its four kinds. */
void emit_info_export(struct emit *out, uint32_t option, uint64_t size, uint16_t flags);
void emit_info_name(struct emit *out, uint32_t option, struct span name);
void emit_info_description(struct emit *out, uint32_t option, struct span description);
void emit_info_block_size(struct emit *out, uint32_t option, uint32_t minimum,
                          uint32_t preferred, uint32_t maximum);

/* NBD_REP_META_CONTEXT; the identifier of a LIST is 0. */
void emit_rep_meta_context(struct emit *out, uint32_t option, uint32_t id, struct span name);

/* The answer to NBD_OPT_EXPORT_NAME: size, flags and, unless `no_zeroes`, 124 zero bytes. */
void emit_export_name_reply(struct emit *out, uint64_t size, uint16_t flags, bool no_zeroes);
