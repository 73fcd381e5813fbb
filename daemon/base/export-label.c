/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an export's label may be, by itself and as the name of a file.  It is also a unit's
 * instance and a word on command lines.
 */
#include "base/export-settings.h"

#include <errno.h>
#include <string.h>

#include "base/attr.h"
#include "base/text.h"

#define SUFFIX EXPORT_FILE_SUFFIX

int export_label_check(const char *label, struct failure *why)
{
	static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789:-_.\\";
	char shown[EXPORT_LABEL_MAX + 4];

	if (*label && strlen(label) <= EXPORT_LABEL_MAX && label[0] != '.' && label[0] != '-' &&
	    label[strspn(label, legal)] == '\0')
		return 0;
	printable(span_of(label), EXPORT_LABEL_MAX, shown, sizeof shown);
	return fail_plain(why, EINVAL, "\"%s\" cannot be an export's label: 1 to %u letters, "
	                  "digits and :-_.\\, not starting with a dot or a dash", shown,
	                  EXPORT_LABEL_MAX);
}

bool export_file_has_suffix(const char *name)
{
	size_t len = strlen(name);

	return len >= strlen(SUFFIX) && strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

int export_label_of(const char *path, char **ret, struct failure *why)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	AUTO_FREE char *label = NULL;
	int r;

	if (!export_file_has_suffix(name))
		return fail_plain(why, EINVAL, "%.300s: the file's name does not end in %s",
		                  path, SUFFIX);
	label = strndup(name, strlen(name) - strlen(SUFFIX));
	if (!label)
		return fail(why, ENOMEM, "cannot keep a label");
	r = export_label_check(label, why);
	if (r < 0)
		return fail_while(why, "%.300s", path);
	*ret = take_ptr(label);
	return 0;
}
