/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake from the client's side: what it sends, and what a server answers, as data.
 *
 * Decoders are pure and treat the server as hostile: they return NULL, or what is wrong in a few
 * words and leave *ret untouched.  Spans point into the payload.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "wire/nbd.h"

/* Bytes of one reply's payload that a client takes: a name, a sentence, a description. */
#define NBD_MAX_ANSWER (2u * NBD_MAX_STRING + 64u)

/* The server's first NBD_GREETING_SIZE bytes. */
const char *decode_greeting(struct bytes in, uint16_t *ret_flags);

void emit_client_flags(struct emit *out, uint32_t flags);

/* NBD_OPT_GO for `name`, which asks for block sizes. */
void emit_go(struct emit *out, struct span name);

/* An option whose payload is `payload`: NBD_OPT_EXPORT_NAME, NBD_OPT_ABORT. */
void emit_option(struct emit *out, uint32_t option, struct span payload);

/* The NBD_OPTION_REPLY_HEADER_SIZE bytes in front of the answer to `option`. */
struct answer_header {
	uint32_t type;                  /* enum nbd_rep, or a number that has no name */
	uint32_t length;                /* at most NBD_MAX_ANSWER */
};
const char *decode_answer_header(struct bytes in, uint32_t option, struct answer_header *ret);

/* What is known of the export when the transmission phase begins. */
struct export_facts {
	uint64_t size;
	uint16_t flags;
	uint32_t minimum, preferred, maximum;   /* block sizes; 0 where the server did not say */
	bool has_size;
};

/* The payload of one NBD_REP_INFO; adds to *facts.  Kinds that nobody asked for are passed over. */
const char *decode_info(struct bytes in, struct export_facts *facts);

/* The answer to NBD_OPT_EXPORT_NAME, without the zeroes. */
const char *decode_export_name_reply(struct bytes in, struct export_facts *facts);
