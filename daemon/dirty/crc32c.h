/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CRC-32C (Castagnoli), as iSCSI and ext4 have it: by the processor where it can.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of some bytes; `before` is the checksum of those that came before them, or 0. */
uint32_t crc32c(uint32_t before, const void *data, size_t length);
