/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/state-folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/paths.h"

int state_folder(const char *label, char *ret, size_t size)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int len;

	if (geteuid() == 0)
		len = snprintf(ret, size, STATE_DIR "/%s", label);
	else if (state && *state == '/')
		len = snprintf(ret, size, "%s/nbd-export/%s", state, label);
	else if (home && *home == '/')
		len = snprintf(ret, size, "%s/.local/state/nbd-export/%s", home, label);
	else
		return -ENOENT;
	return (size_t) len < size ? 0 : -ENAMETOOLONG;
}
