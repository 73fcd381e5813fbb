/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/absolute-path.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"

#define IS_UP(part, len) ((len) == 2 && (part)[0] == '.' && (part)[1] == '.')

/* The next part between slashes; its length is 0 at the end. */
static size_t next_part(const char **path)
{
	*path += strspn(*path, "/");
	return strcspn(*path, "/");
}

static bool goes_up(const char *path)
{
	size_t len;

	for (; (len = next_part(&path)) > 0; path += len)
		if (IS_UP(path, len))
			return true;
	return false;
}

/* In place; it only gets shorter.  ".." takes back the part before it. */
static void normalise(char *path)
{
	const char *from = path;
	char *to = path;
	size_t len;

	for (; (len = next_part(&from)) > 0; from += len) {
		if (len == 1 && from[0] == '.')
			continue;
		if (IS_UP(from, len)) {
			while (to > path && *--to != '/')
				;
			continue;
		}
		*to++ = '/';
		memmove(to, from, len);
		to += len;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
}

/* Takes `path`.  What is above a link to a folder only the kernel knows; the last part stays
 * as it is, for it may be a link on purpose, /dev/disk/by-id/... */
static char *resolve(char *path)
{
	char *slash = strrchr(path, '/'), *whole;
	AUTO_FREE char *folder = NULL;

	if (!goes_up(path) || goes_up(slash))
		return path;
	*slash = '\0';
	folder = realpath(path, NULL);
	*slash = '/';
	if (!folder)
		return path;
	if (asprintf(&whole, "%s%s", folder, slash) < 0)
		whole = NULL;
	free(path);
	return whole;
}

char *absolute_path(const char *path)
{
	AUTO_FREE char *here = NULL;
	char *whole;

	if (path[0] == '/') {
		whole = strdup(path);
	} else {
		here = getcwd(NULL, 0);
		if (!here || asprintf(&whole, "%s%s%s", here, here[1] ? "/" : "", path) < 0)
			return NULL;
	}
	if (whole)
		whole = resolve(whole);
	if (whole)
		normalise(whole);
	return whole;
}
