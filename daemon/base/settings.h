/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads our configuration files: "[Section]" lines, "Key=value" lines, comments
 * from # or ; at the start of a line, spaces around = ignored, nothing else.
 *
 * Why our own reader: Debian 12's inih gives handlers no line numbers and cuts
 * lines at 200 bytes, and an export's name alone may have 4096.
 *
 * A file is read whole or not at all: unknown sections and keys, keys given twice (but for
 * those that are lists, a line each) and values that do not parse are errors that carry the file and the line.
 */
#pragma once

#include <stdbool.h>

#include "base/failure.h"

#define SETTINGS_MAX_LINE 8192u

/* One key that a file may have.  `parse` returns 0 or fails with a sentence about
 * `value`; the reader adds the file, the line and the key. */
struct setting {
	const char *section;
	const char *key;
	int (*parse)(const char *value, void *into, struct failure *why);
	size_t offset;          /* of the member inside the structure that is filled */
	bool many;              /* it may be given several times: `parse` adds to what is there */
};

/*
 * Fills `ret` from the file `path` (borrowed) by `table` of `n` rows; `parse` gets a
 * pointer to the member.  -errno and a sentence on failure; `ret` may then be half
 * filled: give it a scratch structure.
 */
int settings_read(const char *path, const struct setting *table, size_t n, void *ret,
                  struct failure *why);

/* Parsers for the usual kinds of value. */
int setting_string(const char *value, void *char_pointer, struct failure *why);  /* strdup */
int setting_bool(const char *value, void *boolean, struct failure *why);
int setting_size(const char *value, void *u64, struct failure *why);
int setting_u32(const char *value, void *u32, struct failure *why);
