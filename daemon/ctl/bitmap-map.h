/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A picture of a dirty map for the terminal: one character for each part of the device, the higher
 * the more of it is dirty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Characters in a line of our standard output: the terminal's, or 64. */
uint32_t bitmap_map_width(void);

/* Whether the user's locale shows block characters. */
bool bitmap_map_blocks(void);

/* Draws `n` parts of a device of `size` bytes, which may be one longer than another by a byte. */
void bitmap_map_draw(FILE *out, const uint64_t *dirty, uint32_t n, uint64_t size, bool ascii);
