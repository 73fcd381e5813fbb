/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What we answer in the transmission phase, byte for byte. */
#include "check.h"

#include <errno.h>

#include "base/attr.h"
#include "wire/reply.h"

#define COOKIE 0x1122334455667788ull
#define OFFSET 0x0102030405060708ull

static const struct request req = { .type = NBD_CMD_WRITE, .cookie = COOKIE, .offset = OFFSET,
                                    .length = 4096 };
static uint8_t at[REPLY_HEADER_MAX + REPLY_ERROR_TEXT_MAX];

#define STRUCTURED(flags, type, length) \
	U32(0x668e33efu), U16(flags), U16(type), U64(COOKIE), U32(length)
#define EXTENDED(flags, type, length) \
	U32(0x6e8a278cu), U16(flags), U16(type), U64(COOKIE), U64(OFFSET), U64(length)

static void expect(const char *what, size_t got, const uint8_t *want, size_t len)
{
	CHECK_EQ(what, got, len);
	CHECK_EQ(what, memcmp(at, want, len), 0);
}

TEST(simple_replies)
{
	expect("success", put_simple_reply(at, COOKIE, NBD_SUCCESS),
	       BYTES(U32(0x67446698), U32(0), U64(COOKIE)));
	expect("error", put_simple_reply(at, COOKIE, NBD_EIO),
	       BYTES(U32(0x67446698), U32(5), U64(COOKIE)));
}

TEST(chunks)
{
	expect("structured", put_chunk(at, NBD_MODE_STRUCTURED, &req, 1, 0, 0),
	       BYTES(STRUCTURED(1, 0, 0)));
	expect("structured, long", put_chunk(at, NBD_MODE_STRUCTURED, &req, 0, 1, 0xffffffffu),
	       BYTES(STRUCTURED(0, 1, 0xffffffffu)));
	expect("extended", put_chunk(at, NBD_MODE_EXTENDED, &req, 1, 0x8001, 1ull << 40),
	       BYTES(EXTENDED(1, 0x8001, 1ull << 40)));
}

TEST(data_and_holes)
{
	expect("data", put_offset_data(at, NBD_MODE_STRUCTURED, &req, 1, 77, 4096),
	       BYTES(STRUCTURED(1, 1, 4104), U64(77)));
	expect("data, extended", put_offset_data(at, NBD_MODE_EXTENDED, &req, 0, 77, 4096),
	       BYTES(EXTENDED(0, 1, 4104), U64(77)));
	expect("hole", put_offset_hole(at, NBD_MODE_STRUCTURED, &req, 0, 77, 4096),
	       BYTES(STRUCTURED(0, 2, 12), U64(77), U32(4096)));
	expect("hole, extended", put_offset_hole(at, NBD_MODE_EXTENDED, &req, 1, 77, 4096),
	       BYTES(EXTENDED(1, 2, 12), U64(77), U32(4096)));
	CHECK_EQ("the longest header", put_offset_hole(at, NBD_MODE_EXTENDED, &req, 1, 0, 1),
	         REPLY_HEADER_MAX);
}

TEST(block_status)
{
	expect("structured", put_block_status(at, NBD_MODE_STRUCTURED, &req, 1, 2, 3),
	       BYTES(STRUCTURED(1, 5, 28), U32(2)));
	expect("extended", put_block_status(at, NBD_MODE_EXTENDED, &req, 1, 2, 3),
	       BYTES(EXTENDED(1, 6, 56), U32(2), U32(3)));
	expect("extent", put_extent(at, NBD_MODE_STRUCTURED, 0xffffffffu, 3),
	       BYTES(U32(0xffffffffu), U32(3)));
	expect("extent, extended", put_extent(at, NBD_MODE_EXTENDED, 1ull << 40, 3),
	       BYTES(U64(1ull << 40), U64(3)));
}

/* As it goes out: the header, and what follows it. */
static size_t put_whole(enum nbd_mode mode, const struct request *r, enum nbd_error error,
                        const char *sentence)
{
	struct span text = { .len = 99 };
	size_t len = put_final(at, mode, r, error, sentence, &text);

	CHECK(len <= REPLY_HEADER_MAX && text.len <= REPLY_ERROR_TEXT_MAX);
	CHECK(text.len == 0 || text.at == (const uint8_t *) sentence);
	if (text.len)
		memcpy(at + len, text.at, text.len);
	return len + text.len;
}

TEST(final_words)
{
	static const struct request read = { .type = NBD_CMD_READ, .cookie = COOKIE,
	                                     .offset = OFFSET };

	expect("simple", put_whole(NBD_MODE_SIMPLE, &req, NBD_SUCCESS, NULL),
	       BYTES(U32(0x67446698), U32(0), U64(COOKIE)));
	expect("simple error", put_whole(NBD_MODE_SIMPLE, &req, NBD_EPERM, "unheard"),
	       BYTES(U32(0x67446698), U32(1), U64(COOKIE)));
	expect("structured", put_whole(NBD_MODE_STRUCTURED, &req, NBD_SUCCESS, "unheard"),
	       BYTES(U32(0x67446698), U32(0), U64(COOKIE)));
	expect("structured read", put_whole(NBD_MODE_STRUCTURED, &read, NBD_SUCCESS, NULL),
	       BYTES(STRUCTURED(1, 0, 0)));
	expect("structured error", put_whole(NBD_MODE_STRUCTURED, &req, NBD_EINVAL, "no"),
	       BYTES(STRUCTURED(1, 0x8001, 8), U32(22), U16(2), 'n', 'o'));
	expect("structured read error", put_whole(NBD_MODE_STRUCTURED, &read, NBD_EIO, NULL),
	       BYTES(STRUCTURED(1, 0x8001, 6), U32(5), U16(0)));
	expect("extended", put_whole(NBD_MODE_EXTENDED, &req, NBD_SUCCESS, NULL),
	       BYTES(EXTENDED(1, 0, 0)));
	expect("extended error", put_whole(NBD_MODE_EXTENDED, &req, NBD_ENOTSUP, NULL),
	       BYTES(EXTENDED(1, 0x8001, 6), U32(95), U16(0)));
}

/* 200 is in the middle of a character of three bytes. */
TEST(long_sentences_are_cut_between_characters)
{
	static char sentence[1000];
	size_t len;

	for (size_t i = 0; i + 3 < sizeof sentence; i += 3)
		memcpy(sentence + i, "\xe2\x82\xac", 3);
	len = put_whole(NBD_MODE_EXTENDED, &req, NBD_EIO, sentence);
	CHECK_EQ("", len, NBD_EXTENDED_CHUNK_SIZE + 6 + 198);
	CHECK_EQ("", at[len - 1], 0xac);
	memset(sentence, 'x', sizeof sentence - 1);
	len = put_whole(NBD_MODE_EXTENDED, &req, NBD_EIO, sentence);
	CHECK_EQ("", len, NBD_EXTENDED_CHUNK_SIZE + 6 + REPLY_ERROR_TEXT_MAX);
}

TEST(errnos_have_their_numbers_on_the_wire)
{
	static const struct {
		int code;
		enum nbd_error want;
	} cases[] = {
		{ 0, NBD_SUCCESS },
		{ EPERM, NBD_EPERM },
		{ EROFS, NBD_EPERM },
		{ EIO, NBD_EIO },
		{ ENOMEM, NBD_ENOMEM },
		{ EINVAL, NBD_EINVAL },
		{ ENOSPC, NBD_ENOSPC },
		{ EDQUOT, NBD_ENOSPC },
		{ EFBIG, NBD_ENOSPC },
		{ EOVERFLOW, NBD_EOVERFLOW },
		{ ENOTSUP, NBD_ENOTSUP },
		{ EOPNOTSUPP, NBD_ENOTSUP },
		{ ESHUTDOWN, NBD_ESHUTDOWN },
		{ ENODATA, NBD_EIO },           /* a bad sector */
		{ EILSEQ, NBD_EIO },            /* its checksum is wrong */
		{ EBADE, NBD_EIO },
		{ EBADMSG, NBD_EIO },
		{ EUCLEAN, NBD_EIO },
		{ ETIMEDOUT, NBD_EIO },
		{ ENOLINK, NBD_EIO },
		{ EREMOTEIO, NBD_EIO },
		{ ENXIO, NBD_EIO },
		{ ENODEV, NBD_EIO },
		{ ESTALE, NBD_EIO },
		{ ECANCELED, NBD_EIO },
		{ EAGAIN, NBD_EIO },
		{ EBADF, NBD_EIO },
		{ 99999, NBD_EIO },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		CHECK_EQ("errno", nbd_error_of(cases[i].code), cases[i].want);
}
