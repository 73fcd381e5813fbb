/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of the NBD protocol that the load generator speaks, from the specification: the
 * numbers, and how they lie in bytes.  Deliberately not the daemon's header.
 */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define GREETING_MAGIC 0x4e42444d41474943ull
#define OPTION_MAGIC 0x49484156454f5054ull
#define OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define FLAGS_FIXED_NO_ZEROES 3u                /* the same bits in both directions */

enum option {
	OPTION_EXPORT_NAME = 1,
	OPTION_ABORT = 2,
	OPTION_STARTTLS = 5,
	OPTION_INFO = 6,
	OPTION_GO = 7,
	OPTION_STRUCTURED_REPLY = 8,
	OPTION_LIST_META_CONTEXT = 9,
	OPTION_SET_META_CONTEXT = 10,
	OPTION_EXTENDED_HEADERS = 11,
};

#define REP_ACK 1u
#define REP_INFO 3u
#define REP_META_CONTEXT 4u
#define REP_ERROR_BIT 0x80000000u
#define REP_ERR_UNSUP 0x80000001u
#define REP_ERR_INVALID 0x80000003u

#define INFO_EXPORT 0u
#define INFO_BLOCK_SIZE 3u

/* Transmission flags: what the null server says it can do */
#define FLAG_HAS_FLAGS (1u << 0)
#define FLAG_SEND_FLUSH (1u << 2)
#define FLAG_SEND_FUA (1u << 3)
#define FLAG_SEND_TRIM (1u << 5)
#define FLAG_SEND_WRITE_ZEROES (1u << 6)
#define FLAG_SEND_DF (1u << 7)
#define FLAG_CAN_MULTI_CONN (1u << 8)
#define FLAG_SEND_CACHE (1u << 10)

enum mode { MODE_SIMPLE, MODE_STRUCTURED, MODE_EXTENDED };

#define REQUEST_MAGIC 0x25609513u
#define EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define REQUEST_SIZE 28u
#define EXTENDED_REQUEST_SIZE 32u

enum command {
	COMMAND_READ = 0,
	COMMAND_WRITE = 1,
	COMMAND_DISC = 2,
	COMMAND_BLOCK_STATUS = 7,
};

#define COMMAND_FLAG_PAYLOAD_LEN (1u << 5)

#define SIMPLE_REPLY_MAGIC 0x67446698u
#define CHUNK_MAGIC 0x668e33efu
#define EXTENDED_CHUNK_MAGIC 0x6e8a278cu
#define SIMPLE_REPLY_SIZE 16u
#define CHUNK_SIZE 20u
#define EXTENDED_CHUNK_SIZE 32u
#define LARGEST_HEADER 32u                      /* of all of them, both directions */

#define CHUNK_FLAG_DONE 1u
#define CHUNK_NONE 0u
#define CHUNK_OFFSET_DATA 1u
#define CHUNK_OFFSET_HOLE 2u
#define CHUNK_BLOCK_STATUS 5u
#define CHUNK_BLOCK_STATUS_EXT 6u
#define CHUNK_ERROR_BIT 0x8000u

#define BASE_ALLOCATION "base:allocation"
#define LARGEST_PAYLOAD (32u << 20)             /* that everybody takes */

static inline void put_be16(uint8_t *at, uint16_t value)
{
	value = htobe16(value);
	memcpy(at, &value, sizeof value);
}

static inline void put_be32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, sizeof value);
}

static inline void put_be64(uint8_t *at, uint64_t value)
{
	value = htobe64(value);
	memcpy(at, &value, sizeof value);
}

static inline uint16_t get_be16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof value);
	return be16toh(value);
}

static inline uint32_t get_be32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof value);
	return be32toh(value);
}

static inline uint64_t get_be64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof value);
	return be64toh(value);
}

/* Writes one request header for this mode; returns its size. */
static inline size_t put_request(uint8_t *at, enum mode mode, enum command command,
                                 uint16_t flags, uint64_t cookie, uint64_t offset, uint64_t length)
{
	put_be16(at + 4, flags);
	put_be16(at + 6, (uint16_t) command);
	put_be64(at + 8, cookie);
	put_be64(at + 16, offset);
	if (mode == MODE_EXTENDED) {
		put_be32(at, EXTENDED_REQUEST_MAGIC);
		put_be64(at + 24, length);
		return EXTENDED_REQUEST_SIZE;
	}
	put_be32(at, REQUEST_MAGIC);
	put_be32(at + 24, (uint32_t) length);
	return REQUEST_SIZE;
}
