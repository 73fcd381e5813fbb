/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/absolute-path.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"

char *absolute_path(const char *path)
{
	AUTO_FREE char *here = NULL;
	char *whole;

	if (path[0] == '/')
		return strdup(path);
	here = getcwd(NULL, 0);
	if (!here || asprintf(&whole, "%s%s%s", here, here[1] ? "/" : "", path) < 0)
		return NULL;
	return whole;
}
