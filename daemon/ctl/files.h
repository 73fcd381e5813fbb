/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The exports' files as the verbs see them: the good ones, and what is wrong with the others.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/export-settings.h"
#include "base/failure.h"

struct bad_file {
	char *path;
	char *label;                    /* NULL if its name makes none */
	char *sentence;
};

struct files {
	struct export_settings *good;
	size_t n_good;
	struct bad_file *bad;
	size_t n_bad;
};

/* A folder that is not there has no files. */
int files_read(const char *folder, struct files *ret, struct failure *why);
void files_clear(struct files *f);

/* NULL if there is none, or it is bad. */
const struct export_settings *files_find(const struct files *f, const char *label);
const struct bad_file *files_find_bad(const struct files *f, const char *label);

/* Whether `s` can stand beside the others: its name, Default=, and its device. */
int files_check_beside(const struct files *f, const struct export_settings *s,
                       struct failure *why);
