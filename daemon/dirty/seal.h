/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header that every unit of a store begins with: what it is, whose, which in order, and a
 * checksum over all of it.
 *
 *   0  magic, 8 bytes     24  sequence, 8           56  bytes in use, 4
 *   8  the store's uuid   32  the unit's own, 24    60  CRC-32C of all bytes in use but these 4
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SEAL_SIZE 64u
#define SEAL_OWN 32u                    /* where the unit's own fields begin */
#define SEAL_OWN_SIZE 24u
#define SEQUENCE_END (UINT64_C(1) << 62)        /* of sequences and ids: none gets there */

/* Writes the header around the unit's own fields, which are there already. */
void seal_unit(uint8_t *unit, size_t used, const char magic[static 8], const uint8_t uuid[16],
               uint64_t sequence);

/* NULL, or in words why these `size` bytes are no such unit.  Any store's when `uuid` is NULL. */
const char *seal_check(const uint8_t *unit, size_t size, const char magic[static 8],
                       const uint8_t uuid[16], uint64_t *ret_sequence, size_t *ret_used);
