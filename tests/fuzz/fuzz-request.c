/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The decoders of the transmission phase, and the replies to what they accept.  The first
 * byte says mode, or filter; for a filter, the second says how many contexts are selected.
 */
#include "fuzz.h"

#include "base/emit.h"
#include "wire/reply.h"
#include "wire/request.h"

static void require_same(const struct request *req, enum nbd_mode mode, const uint8_t *at,
                         size_t len)
{
	uint8_t buffer[NBD_EXTENDED_REQUEST_SIZE];
	struct emit out = emit_into(buffer, sizeof buffer);
	bool extended = mode == NBD_MODE_EXTENDED;

	emit_u32(&out, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
	emit_u16(&out, req->flags);
	emit_u16(&out, req->type);
	emit_u64(&out, req->cookie);
	emit_u64(&out, req->offset);
	if (extended)
		emit_u64(&out, req->length);
	else
		emit_u32(&out, (uint32_t) req->length);
	REQUIRE(emit_fits(&out) && out.len == len && memcmp(buffer, at, len) == 0);
}

static void require_payload(const struct request *req, enum nbd_mode mode)
{
	uint64_t payload = request_payload(req, mode);

	REQUIRE(payload == 0 || payload == req->length);
	REQUIRE(req->type != NBD_CMD_DISC || payload == 0);
	REQUIRE(req->type != NBD_CMD_WRITE || payload == req->length);
}

/* A reply in its exact room; each repeats the cookie where the mode has it. */
static void require_replies(const struct request *req, enum nbd_mode mode)
{
	char sentence[300];
	uint8_t *room = malloc(REPLY_HEADER_MAX);
	uint64_t cookie = htobe64(req->cookie);
	struct span text;
	size_t len;

	if (!room)
		abort();
	memset(sentence, 0xc3, sizeof sentence - 1);
	sentence[req->offset % sizeof sentence] = '\0';
	sentence[sizeof sentence - 1] = '\0';
	len = put_final(room, mode, req, nbd_error_of((int) (req->length & 0x7f)), sentence, &text);
	REQUIRE(len <= REPLY_HEADER_MAX && text.len <= REPLY_ERROR_TEXT_MAX);
	REQUIRE(text.len == 0 || text.at == (const uint8_t *) sentence);
	REQUIRE(memcmp(room + 8, &cookie, sizeof cookie) == 0);
	free(room);
	if (mode == NBD_MODE_SIMPLE)
		return;

	room = malloc(REPLY_HEADER_MAX);
	if (!room)
		abort();
	len = put_offset_hole(room, mode, req, 0, req->offset, (uint32_t) req->length);
	REQUIRE(len <= REPLY_HEADER_MAX);
	len = put_offset_data(room, mode, req, 0, req->offset, NBD_MAX_PAYLOAD);
	REQUIRE(len <= REPLY_HEADER_MAX);
	len = put_block_status(room, mode, req, 0, req->type, NBD_MAX_EXTENTS);
	REQUIRE(len <= REPLY_HEADER_MAX);
	REQUIRE(memcmp(room + 8, &cookie, sizeof cookie) == 0);
	free(room);
}

static void fuzz_request(const uint8_t *at, size_t len, enum nbd_mode mode)
{
	struct request req = { .type = 0xabcd };

	if (!decode_request(bytes_over(at, len), mode, &req)) {
		REQUIRE(req.type == 0xabcd && req.flags == 0 && req.length == 0);
		return;
	}
	REQUIRE(len == request_size(mode));
	require_same(&req, mode, at, len);
	require_payload(&req, mode);
	require_replies(&req, mode);
}

static void fuzz_filter(const uint8_t *at, size_t len, size_t n_selected)
{
	struct status_filter filter = { .length = 99 };
	uint32_t selected[NBD_MAX_CONTEXTS];

	for (uint32_t i = 0; i < n_selected; i++)
		selected[i] = (uint32_t) n_selected - i;
	if (!decode_status_filter(bytes_over(at, len), selected, n_selected, &filter)) {
		REQUIRE(filter.length == 99 && filter.wanted == 0);
		return;
	}
	REQUIRE(filter.wanted != 0);
	REQUIRE(n_selected == 64 || filter.wanted >> n_selected == 0);
	REQUIRE(len == 8 + 4 * (size_t) __builtin_popcountll(filter.wanted));
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
	if (len < 2)
		return 0;
	if (at[0] % 4 < N_NBD_MODES)
		fuzz_request(at + 1, len - 1, at[0] % 4);
	else
		fuzz_filter(at + 2, len - 2, at[1] % (NBD_MAX_CONTEXTS + 1));
	return 0;
}
