/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a client sends in the transmission phase: bytes to structures.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "wire/nbd.h"

struct request {
	uint16_t flags;                 /* NBD_CMD_FLAG_* */
	uint16_t type;                  /* enum nbd_cmd, or anything */
	uint64_t cookie;                /* the client's; sent back as it came */
	uint64_t offset;                /* bytes */
	uint64_t length;                /* bytes; of the effect, or of the payload */
};

/* Bytes of a request header in this mode. */
static inline size_t request_size(enum nbd_mode mode)
{
	return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_SIZE : NBD_REQUEST_SIZE;
}

/* False for a wrong magic, which ends the connection; *ret is untouched then. */
bool decode_request(struct bytes in, enum nbd_mode mode, struct request *ret);

/* How many bytes of payload follow the header (may be above NBD_MAX_PAYLOAD). */
uint64_t request_payload(const struct request *req, enum nbd_mode mode);

/*
 * The payload of an extended NBD_CMD_BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: u64
 * length of the effect, then the identifiers of the contexts that are wanted.
 * `selected` are the identifiers this client negotiated.  False, with *ret untouched, for an
 * empty list, an identifier that was not negotiated, or one that comes twice.
 */
struct status_filter {
	uint64_t length;                /* of the range to describe, bytes */
	uint64_t wanted;                /* bit i: selected[i] */
};
bool decode_status_filter(struct bytes in, const uint32_t *selected, size_t n_selected,
                          struct status_filter *ret);
