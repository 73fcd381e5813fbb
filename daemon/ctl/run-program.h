/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a program to its end, with nothing on its standard input, and keeps what it says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"

/* It could not be executed. */
#define RUN_CANNOT 127

/*
 * `argv[0]` is a path, or a name that is looked for in $PATH; NULL ends it.  `prepare`, unless
 * NULL, runs in the child; it is not executed where that is false.  `ret_text` gets both of its
 * outputs, only the end where they are longer.  Returns its exit status, or fails: no process,
 * or one that was killed.
 */
int run_program(const char *const *argv, bool (*prepare)(void), char *ret_text, size_t size,
                struct failure *why);

/* The last line of it that is not empty; cuts `text`. */
const char *run_last_line(char *text);
