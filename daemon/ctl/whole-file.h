/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small files that are there whole or not at all: made as PATH.new, then renamed.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/failure.h"

/* "FOLDER/NAME" into `ret` of PATH_MAX bytes. */
int whole_file_path(const char *folder, const char *name, char *ret, struct failure *why);

/* The name that `path` has until it is whole, into `ret` of PATH_MAX bytes; nothing is there. */
int whole_file_begin(const char *path, char *ret, struct failure *why);
/* On the disk, with this mode, under its name. */
int whole_file_end(const char *unfinished, const char *path, mode_t mode, struct failure *why);

int whole_file_write(const char *path, const void *at, size_t len, mode_t mode,
                     struct failure *why);

/* All of it and a NUL, the caller's to free.  -ENOENT with a sentence when there is none. */
int whole_file_read(const char *path, char **ret, size_t *ret_len, struct failure *why);
