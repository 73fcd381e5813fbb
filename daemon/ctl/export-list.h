/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `nbdctl serve` is to serve: settings made from PATH arguments, or read from a folder.
 */
#pragma once

#include <stddef.h>

#include "base/export-settings.h"
#include "base/failure.h"
#include "ctl/serve-options.h"

struct export_list {
	struct export_settings *items;
	size_t n;
};

/*
 * One export for each [NAME=]PATH.  -EINVAL and a sentence for names that cannot be
 * or that are there twice.  Whether a path can be served is for nbd-export to find out.
 */
int export_list_from_paths(const struct serve_options *o, struct export_list *ret,
                           struct failure *why);

/* Every good LABEL.conf of the folder; the others are logged and left out. */
int export_list_from_folder(const char *folder, struct export_list *ret, struct failure *why);

/* For --insecure-listen: Allow=any for each that has no rules of its own. */
int export_list_let_anybody_in(struct export_list *list, struct failure *why);

void export_list_clear(struct export_list *list);
