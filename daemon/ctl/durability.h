/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How FLUSH and FUA reach media, in words.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* `write_cache`: of the running export, or NULL to ask sysfs.  "" when nothing can be told. */
void durability_words(const char *device, const bool *write_cache, char *ret, size_t size);
