/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/seal.h"

#include <string.h>

#include "base/bytes.h"
#include "base/emit.h"
#include "dirty/crc32c.h"

#define CRC_AT 60u

static uint32_t checksum(const uint8_t *unit, size_t used)
{
	return crc32c(crc32c(0, unit, CRC_AT), unit + SEAL_SIZE, used - SEAL_SIZE);
}

void seal_unit(uint8_t *unit, size_t used, const char magic[static 8], const uint8_t uuid[16],
               uint64_t sequence)
{
	struct emit head = emit_into(unit, SEAL_OWN);
	struct emit tail = emit_into(unit + SEAL_OWN + SEAL_OWN_SIZE, 8);

	emit_span(&head, (struct span) { .at = (const uint8_t *) magic, .len = 8 });
	emit_span(&head, (struct span) { .at = uuid, .len = 16 });
	emit_u64(&head, sequence);
	emit_u32(&tail, (uint32_t) used);
	emit_u32(&tail, checksum(unit, used));
}

const char *seal_check(const uint8_t *unit, size_t size, const char magic[static 8],
                       const uint8_t uuid[16], uint64_t *ret_sequence, size_t *ret_used)
{
	struct bytes in = bytes_over(unit, size);
	struct span kind = take_span(&in, 8);
	struct span owner = take_span(&in, 16);
	uint64_t sequence = take_u64(&in);
	uint32_t used, crc;

	(void) take_span(&in, SEAL_OWN_SIZE);
	used = take_u32(&in);
	crc = take_u32(&in);
	if (in.overrun || memcmp(kind.at, magic, 8) != 0)
		return "it does not begin as it should";
	if (used < SEAL_SIZE || used > size)
		return "its length is out of range";
	if (crc != checksum(unit, used))
		return "its checksum does not match";
	if (uuid && memcmp(owner.at, uuid, 16) != 0)
		return "it belongs to another store";
	if (sequence >= SEQUENCE_END)
		return "its sequence number is out of range";
	*ret_sequence = sequence;
	*ret_used = used;
	return NULL;
}
