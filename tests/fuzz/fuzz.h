/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every fuzz target has: the entry point, and REQUIRE for what must hold.
 *
 * A target is one fuzz-NAME.c.  run.c drives it wherever there is a compiler; with clang,
 * libFuzzer does too (scripts/fuzz).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len);

/* Unlike assert(), never compiled out. */
#define REQUIRE(condition)                                                    \
	do {                                                                  \
		if (!(condition)) {                                           \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
			abort();                                              \
		}                                                             \
	} while (0)

/* Whether all of `s` lies in the input. */
static inline bool lies_in(struct span s, const uint8_t *at, size_t len)
{
	return s.len == 0 || (s.at >= at && s.len <= len && s.at <= at + len - s.len);
}
