/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a client sends in the transmission phase. */
#include "check.h"

#include "base/attr.h"
#include "wire/request.h"

static const uint8_t plain[] = { U32(0x25609513), U16(1), U16(3), U64(0x1122334455667788ull),
                                 U64(0xfedcba9876543210ull), U32(0x80000001u) };
static const uint8_t extended[] = { U32(0x21e41c71), U16(1), U16(3), U64(0x1122334455667788ull),
                                    U64(0xfedcba9876543210ull), U64(0x8000000000000001ull) };

static void expect_fields(const struct request *req, uint64_t length)
{
	CHECK_EQ("", req->flags, 1);
	CHECK_EQ("", req->type, 3);
	CHECK_EQ("", req->cookie, 0x1122334455667788ull);
	CHECK_EQ("", req->offset, 0xfedcba9876543210ull);
	CHECK_EQ("", req->length, length);
}

TEST(requests_are_read)
{
	struct request req = { 0 };

	CHECK_EQ("", sizeof plain, request_size(NBD_MODE_SIMPLE));
	CHECK_EQ("", sizeof plain, request_size(NBD_MODE_STRUCTURED));
	CHECK_EQ("", sizeof extended, request_size(NBD_MODE_EXTENDED));

	CHECK(decode_request(bytes_over(plain, sizeof plain), NBD_MODE_SIMPLE, &req));
	expect_fields(&req, 0x80000001u);
	req = (struct request) { 0 };
	CHECK(decode_request(bytes_over(plain, sizeof plain), NBD_MODE_STRUCTURED, &req));
	expect_fields(&req, 0x80000001u);
	req = (struct request) { 0 };
	CHECK(decode_request(bytes_over(extended, sizeof extended), NBD_MODE_EXTENDED, &req));
	expect_fields(&req, 0x8000000000000001ull);
}

TEST(requests_of_another_mode_are_refused)
{
	struct request req = { .cookie = 99 };

	CHECK(!decode_request(bytes_over(extended, sizeof plain), NBD_MODE_SIMPLE, &req));
	CHECK(!decode_request(bytes_over(extended, sizeof extended), NBD_MODE_STRUCTURED, &req));
	CHECK(!decode_request(bytes_over(plain, sizeof plain), NBD_MODE_EXTENDED, &req));
	CHECK_EQ("untouched", req.cookie, 99);
}

TEST(every_wrong_bit_of_the_magic_is_refused)
{
	uint8_t copy[sizeof plain];
	struct request req = { .cookie = 99 };

	for (unsigned bit = 0; bit < 32; bit++) {
		memcpy(copy, plain, sizeof copy);
		copy[bit / 8] ^= (uint8_t) (1u << bit % 8);
		CHECK(!decode_request(bytes_over(copy, sizeof copy), NBD_MODE_SIMPLE, &req));
	}
	CHECK_EQ("untouched", req.cookie, 99);
}

TEST(every_truncation_is_refused)
{
	struct request req = { .cookie = 99 };

	for (size_t len = 0; len < sizeof plain; len++)
		CHECK(!decode_request(bytes_over(plain, len), NBD_MODE_SIMPLE, &req));
	for (size_t len = 0; len < sizeof extended; len++)
		CHECK(!decode_request(bytes_over(extended, len), NBD_MODE_EXTENDED, &req));
	CHECK_EQ("untouched", req.cookie, 99);
}

TEST(payload_follows_writes_and_what_announces_it)
{
	const struct {
		const char *what;
		enum nbd_mode mode;
		uint16_t type, flags;
		uint64_t length, want;
	} cases[] = {
		{ "read", NBD_MODE_SIMPLE, NBD_CMD_READ, 0, 4096, 0 },
		{ "write", NBD_MODE_SIMPLE, NBD_CMD_WRITE, 0, 4096, 4096 },
		{ "large write", NBD_MODE_STRUCTURED, NBD_CMD_WRITE, 0, 0xffffffffu, 0xffffffffu },
		{ "the flag means nothing", NBD_MODE_STRUCTURED, NBD_CMD_TRIM,
		  NBD_CMD_FLAG_PAYLOAD_LEN, 4096, 0 },
		{ "extended write", NBD_MODE_EXTENDED, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN,
		  4096, 4096 },
		{ "extended write, unannounced", NBD_MODE_EXTENDED, NBD_CMD_WRITE, 0, 4096, 4096 },
		{ "extended trim", NBD_MODE_EXTENDED, NBD_CMD_TRIM, 0, 1ull << 40, 0 },
		{ "status filter", NBD_MODE_EXTENDED, NBD_CMD_BLOCK_STATUS,
		  NBD_CMD_FLAG_PAYLOAD_LEN, 12, 12 },
		{ "announced and wrong", NBD_MODE_EXTENDED, NBD_CMD_READ, NBD_CMD_FLAG_PAYLOAD_LEN,
		  1ull << 40, 1ull << 40 },
		{ "an unknown command", NBD_MODE_EXTENDED, 99, NBD_CMD_FLAG_PAYLOAD_LEN, 7, 7 },
		{ "disconnect", NBD_MODE_SIMPLE, NBD_CMD_DISC, 0, 4096, 0 },
		{ "disconnect, announced", NBD_MODE_EXTENDED, NBD_CMD_DISC,
		  NBD_CMD_FLAG_PAYLOAD_LEN, 4096, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct request req = { .type = cases[i].type, .flags = cases[i].flags,
		                       .length = cases[i].length };

		CHECK_EQ(cases[i].what, request_payload(&req, cases[i].mode), cases[i].want);
	}
}

static const uint32_t selected[] = { 1, 0, 7 };

TEST(status_filters)
{
	const struct {
		const char *what;
		const uint8_t *payload;
		size_t len;
		uint64_t wanted;        /* 0 for a refusal */
	} cases[] = {
		{ "one", BYTES(U64(4096), U32(0)), 2 },
		{ "two", BYTES(U64(4096), U32(7), U32(1)), 5 },
		{ "all", BYTES(U64(4096), U32(7), U32(1), U32(0)), 7 },
		{ "empty", BYTES(U64(4096)), 0 },
		{ "nothing", NULL, 0, 0 },
		{ "unknown", BYTES(U64(4096), U32(2)), 0 },
		{ "known and unknown", BYTES(U64(4096), U32(0), U32(2)), 0 },
		{ "twice", BYTES(U64(4096), U32(7), U32(7)), 0 },
		{ "twice, apart", BYTES(U64(4096), U32(7), U32(1), U32(7)), 0 },
		{ "one byte more", BYTES(U64(4096), U32(7), 0), 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct status_filter filter = { .length = 99 };
		struct bytes in = bytes_over(cases[i].payload, cases[i].len);
		bool good = cases[i].wanted;

		CHECK_EQ(cases[i].what, decode_status_filter(in, selected, 3, &filter), good);
		CHECK_EQ(cases[i].what, filter.wanted, cases[i].wanted);
		CHECK_EQ(cases[i].what, filter.length, good ? 4096 : 99);
	}
}

/* The prefixes that end with an identifier are shorter lists, and good. */
TEST(status_filter_truncations_are_refused)
{
	static const uint8_t payload[] = { U64(1), U32(1), U32(0), U32(7) };
	struct status_filter filter = { .length = 99 };

	for (size_t len = 0; len < sizeof payload; len++)
		if (len <= 8 || len % 4 != 0)
			CHECK(!decode_status_filter(bytes_over(payload, len), selected, 3,
			                            &filter));
	CHECK_EQ("untouched", filter.length, 99);
}

TEST(status_filter_takes_64_contexts_and_no_selection_at_all)
{
	uint8_t payload[8 + 64 * 4] = { 0 };
	uint32_t ids[64];
	struct status_filter filter = { 0 };

	for (uint32_t i = 0; i < 64; i++) {
		ids[i] = i + 1000;
		memcpy(payload + 8 + i * 4, (const uint8_t[]) { U32(i + 1000) }, 4);
	}
	CHECK(decode_status_filter(bytes_over(payload, sizeof payload), ids, 64, &filter));
	CHECK(filter.wanted == UINT64_MAX);
	CHECK(!decode_status_filter(bytes_over(payload, sizeof payload), ids, 0, &filter));
}
