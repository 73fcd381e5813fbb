/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A folder of its own for a test that needs files; scratch_end() removes it.
 */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scratch {
	char dir[64];
	char path[4200];        /* scratch_path()'s latest answer */
};

static inline struct scratch scratch_start(void)
{
	struct scratch s = { .dir = "/tmp/test-XXXXXX" };

	if (!mkdtemp(s.dir)) {
		perror("mkdtemp");
		abort();
	}
	return s;
}

/* The path of `name` in the folder, until the next call. */
static inline const char *scratch_path(struct scratch *s, const char *name)
{
	(void) snprintf(s->path, sizeof s->path, "%s/%s", s->dir, name);
	return s->path;
}

/* Writes the file `name`, and gives back its path as scratch_path() does. */
static inline const char *scratch_write(struct scratch *s, const char *name, const void *bytes,
                                        size_t len)
{
	FILE *out = fopen(scratch_path(s, name), "w");

	if (!out || fwrite(bytes, 1, len, out) != len || fclose(out) != 0) {
		perror(s->path);
		abort();
	}
	return s->path;
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int kind,
                                     struct FTW *where)
{
	(void) st, (void) kind, (void) where;
	return remove(path);
}

static inline void scratch_end(struct scratch *s)
{
	(void) nftw(s->dir, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
