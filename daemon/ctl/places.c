/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/places.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/paths.h"
#include "ctl/absolute-path.h"

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* `nbdctl serve` keeps its exports' files in its private folder. */
static int find_exports(const char *given, struct places *p)
{
	if (asprintf(&p->exports, "%s/exports", p->runtime) < 0) {
		p->exports = NULL;
		return -ENOMEM;
	}
	p->of_serve = strcmp(p->runtime, RUN_DIR) != 0 && is_folder(p->exports);
	if (p->of_serve && !given)
		return 0;
	free(p->exports);
	p->exports = absolute_path(given ? given : EXPORTS_DIR);
	return p->exports ? 0 : -ENOMEM;
}

int places_find(const char *exports, const char *runtime, struct places *ret,
                struct failure *why)
{
	const char *of_environment = getenv("NBD_EXPORT_RUNTIME");
	struct places p = { 0 };

	if (!runtime)
		runtime = of_environment && *of_environment ? of_environment : RUN_DIR;
	p.runtime = absolute_path(runtime);
	if (!p.runtime || find_exports(exports, &p) < 0) {
		places_clear(&p);
		return fail(why, ENOMEM, "cannot find out where the exports are");
	}
	p.of_units = strcmp(p.exports, EXPORTS_DIR) == 0 || getenv("NBD_EXPORT_SYSTEMD");
	*ret = p;
	return 0;
}

void places_clear(struct places *p)
{
	free(p->exports);
	free(p->runtime);
	*p = (struct places) { 0 };
}

static int check_fits(int len, size_t size, const char *what, struct failure *why)
{
	if (len >= 0 && (size_t) len < size)
		return 0;
	return fail_plain(why, ENAMETOOLONG, "the runtime folder's path is too long for %s's "
	                  "control socket", what);
}

int places_control(const struct places *p, const char *label, char *ret, size_t size,
                   struct failure *why)
{
	int len = snprintf(ret, size, "%s/instances/%s/" CONTROL_SOCKET, p->runtime, label);

	return check_fits(len, size, label, why);
}

int places_negotiator(const struct places *p, char *ret, size_t size, struct failure *why)
{
	int len = snprintf(ret, size, "%s/negotiator/" CONTROL_SOCKET, p->runtime);

	return check_fits(len, size, "the negotiator", why);
}

char *places_file(const struct places *p, const char *label)
{
	char *path;

	return asprintf(&path, "%s/%s" EXPORT_FILE_SUFFIX, p->exports, label) < 0 ? NULL : path;
}
