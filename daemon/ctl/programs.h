/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the programs that belong to this nbdctl, installed or in a build folder.
 */
#pragma once

#include "base/failure.h"

/*
 * The path of `name`, the caller's to free: beside our own executable, in the folder of a
 * build tree, or in the libexec folder.  NBD_EXPORT_PROGRAMS=DIR in the environment
 * names the one folder to look in instead.
 */
int program_find(const char *name, char **ret, struct failure *why);
