/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stretches of anonymous memory that are committed when used, and given up together. */
#pragma once

#include <stddef.h>

struct mappings {
	struct mapping *first;
};

/* Zeroed memory of `size` bytes, page-aligned, never in huge pages; NULL and errno. */
void *mappings_add(struct mappings *mappings, size_t size);
void mappings_clear(struct mappings *mappings);
