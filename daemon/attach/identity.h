/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel keeps about a device that we attached, for whoever comes later: its "backend
 * identifier", one line of text in /sys/block/nbdN/backend (kernel 5.14 and later).
 *
 *   nbd-export/1 NAME CONNECTIONS URI
 *
 * NAME is "-" for a device without one.  Others' identifiers are refused.
 */
#pragma once

#include <stdbool.h>

#include "attach/uri.h"

#define ATTACH_NAME_MAX 64u
#define ATTACH_IDENTITY_MAX (NBD_URI_MAX + ATTACH_NAME_MAX + 64u)

struct attach_identity {
	char name[ATTACH_NAME_MAX + 1];         /* "" without */
	unsigned connections;
	char uri[NBD_URI_MAX + 1];
};

void identity_format(const struct attach_identity *id, char ret[ATTACH_IDENTITY_MAX]);
bool identity_parse(const char *text, struct attach_identity *ret);

/* Letters, digits and :-_. and no more than ATTACH_NAME_MAX. */
int attach_name_check(const char *name, struct failure *why);
