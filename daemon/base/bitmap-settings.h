/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keys of an export's file that are about dirty bitmaps: Bitmap=, BitmapStore= and so on.
 * What a value may be, for reading and for writing.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"

#define BITMAP_NAMES_MAX 60u            /* of one export */
#define BITMAP_NAME_LONGEST 255u        /* bytes */

#define BITMAP_GRANULARITY_DEFAULT (UINT64_C(64) << 10)
#define BITMAP_GRANULARITY_MIN (UINT64_C(4) << 10)
#define BITMAP_GRANULARITY_MAX (UINT64_C(16) << 20)
#define BITMAP_REGION_DEFAULT (UINT64_C(4) << 20)
#define BITMAP_REGION_MIN (UINT64_C(64) << 10)
#define BITMAP_REGION_MAX (UINT64_C(16) << 30)
#define BITMAP_ARM_LIMIT_DEFAULT 1024u
#define BITMAP_ARM_LIMIT_MIN 64u
#define BITMAP_ARM_LIMIT_MAX 65536u
#define BITMAP_COLD_DEFAULT 5u          /* seconds */
#define BITMAP_COLD_MAX 250u

/* OnBitmapError=: once the store cannot be written. */
enum export_on_bitmap_error {
	EXPORT_BITMAPS_LOST,            /* say durably that bitmaps are lost; writes go on */
	EXPORT_WRITES_STOP,
};

/* "lost" or "stop". */
const char *on_bitmap_error_word(enum export_on_bitmap_error what);

/* One name: 1 to 255 bytes of UTF-8 without blanks and control characters. */
int bitmap_name_check(const char *name, struct failure *why);

/* Names with blanks between them, each once, as Bitmap= has them; "" is no name. */
int bitmap_names_check(const char *names, struct failure *why);

/* The same as an array that ends with NULL, in one piece of memory: free() it. */
int bitmap_names_split(const char *names, const char ***ret, struct failure *why);

int bitmap_store_check(const char *path, struct failure *why);
int bitmap_granularity_check(uint64_t bytes, struct failure *why);
int bitmap_region_check(uint64_t bytes, struct failure *why);
int bitmap_arm_limit_check(uint32_t n, struct failure *why);
int bitmap_cold_check(uint32_t seconds, struct failure *why);

/* Parsers for tables of settings. */
int setting_bitmap_names(const char *value, void *char_pointer, struct failure *why);
int setting_bitmap_store(const char *value, void *char_pointer, struct failure *why);
int setting_bitmap_granularity(const char *value, void *u64, struct failure *why);
int setting_bitmap_region(const char *value, void *u64, struct failure *why);
int setting_bitmap_arm_limit(const char *value, void *u32, struct failure *why);
int setting_bitmap_cold(const char *value, void *u32, struct failure *why);
int setting_on_bitmap_error(const char *value, void *what, struct failure *why);
