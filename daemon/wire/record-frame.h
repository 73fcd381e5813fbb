/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is around each record between our own programs: u8 version, u8 type, u16 zero, u32 length,
 * and the body, of as many bytes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/emit.h"

/* The header of all of `in`, as it is written: NULL, or what is wrong with it in words for the log,
 * with nothing returned.  Whether the type is known is for the caller to tell. */
const char *take_frame(struct bytes in, uint8_t version, uint8_t *ret_type, struct bytes *ret_body);

/* Returns where the body begins, for emit_frame_end(), which stores its length when the body is there. */
size_t emit_frame_begin(struct emit *out, uint8_t version, uint8_t type);
void emit_frame_end(struct emit *out, size_t body_at);
