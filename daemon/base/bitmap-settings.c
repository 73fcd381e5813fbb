/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bitmap-settings.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/settings.h"
#include "base/text.h"

#define BLANKS " \t"
#define SHOWN 80u

static const char *const on_error_words[] = {
	[EXPORT_BITMAPS_LOST] = "lost",
	[EXPORT_WRITES_STOP] = "stop",
};

const char *on_bitmap_error_word(enum export_on_bitmap_error what)
{
	return on_error_words[what];
}

/* --- names ---------------------------------------------------------------- */

int bitmap_name_check(const char *name, struct failure *why)
{
	size_t len = strlen(name);

	if (len == 0)
		return fail_plain(why, EINVAL, "a bitmap's name cannot be empty");
	if (len > BITMAP_NAME_LONGEST)
		return fail_plain(why, EINVAL, "a bitmap's name has %u bytes at most",
		                  BITMAP_NAME_LONGEST);
	if (!is_utf8(span_of(name)))
		return fail_plain(why, EINVAL, "a bitmap's name must be UTF-8");
	for (size_t i = 0; i < len; i++)
		if ((uint8_t) name[i] <= 0x20 || name[i] == 0x7f)
			return fail_plain(why, EINVAL, "a bitmap's name cannot hold a %s",
			                  name[i] == ' ' ? "space" : "control character");
	return 0;
}

static int check_once(const char *const *names, size_t n, struct failure *why)
{
	char shown[SHOWN + 4];
	int r = bitmap_name_check(names[n], why);

	for (size_t i = 0; r == 0 && i < n; i++) {
		if (strcmp(names[i], names[n]) != 0)
			continue;
		printable(span_of(names[n]), SHOWN, shown, sizeof shown);
		r = fail_plain(why, EINVAL, "\"%s\" is there twice", shown);
	}
	return r;
}

int bitmap_names_split(const char *names, const char ***ret, struct failure *why)
{
	size_t table = (BITMAP_NAMES_MAX + 1) * sizeof(char *);
	AUTO_FREE const char **all = calloc(1, table + strlen(names) + 1);
	size_t n = 0;
	char *rest, *word;

	if (!all)
		return fail(why, ENOMEM, "cannot keep the names of bitmaps");
	rest = strcpy((char *) all + table, names);
	while ((word = strsep(&rest, BLANKS))) {
		if (!*word)
			continue;
		if (n == BITMAP_NAMES_MAX)
			return fail_plain(why, EINVAL, "more than %u bitmaps", BITMAP_NAMES_MAX);
		all[n] = word;
		if (check_once(all, n++, why) < 0)
			return -why->code;
	}
	*ret = take_ptr(all);
	return 0;
}

int bitmap_names_check(const char *names, struct failure *why)
{
	AUTO_FREE const char **all = NULL;

	return bitmap_names_split(names, &all, why);
}

/* --- the others ----------------------------------------------------------- */

int bitmap_store_check(const char *path, struct failure *why)
{
	if (path[0] != '/' || path[strlen(path) - 1] == '/')
		return fail_plain(why, EINVAL, "not the absolute path of a file");
	if (strlen(path) >= PATH_MAX)
		return fail_plain(why, EINVAL, "longer than %d bytes", PATH_MAX - 1);
	return 0;
}

static int check_power(uint64_t bytes, uint64_t least, uint64_t most, struct failure *why)
{
	char from[16], to[16];

	if (bytes >= least && bytes <= most && (bytes & (bytes - 1)) == 0)
		return 0;
	format_size(least, from, sizeof from);
	format_size(most, to, sizeof to);
	return fail_plain(why, ERANGE, "not a power of two between %s and %s", from, to);
}

int bitmap_granularity_check(uint64_t bytes, struct failure *why)
{
	return check_power(bytes, BITMAP_GRANULARITY_MIN, BITMAP_GRANULARITY_MAX, why);
}

int bitmap_region_check(uint64_t bytes, struct failure *why)
{
	return check_power(bytes, BITMAP_REGION_MIN, BITMAP_REGION_MAX, why);
}

static int check_between(uint32_t n, uint32_t least, uint32_t most, struct failure *why)
{
	if (n >= least && n <= most)
		return 0;
	return fail_plain(why, ERANGE, "not between %u and %u", least, most);
}

int bitmap_arm_limit_check(uint32_t n, struct failure *why)
{
	return check_between(n, BITMAP_ARM_LIMIT_MIN, BITMAP_ARM_LIMIT_MAX, why);
}

int bitmap_cold_check(uint32_t seconds, struct failure *why)
{
	return check_between(seconds, 1, BITMAP_COLD_MAX, why);
}

/* --- parsers -------------------------------------------------------------- */

int setting_bitmap_names(const char *value, void *char_pointer, struct failure *why)
{
	int r = bitmap_names_check(value, why);

	return r < 0 ? r : setting_string(value, char_pointer, why);
}

int setting_bitmap_store(const char *value, void *char_pointer, struct failure *why)
{
	int r = bitmap_store_check(value, why);

	return r < 0 ? r : setting_string(value, char_pointer, why);
}

int setting_bitmap_granularity(const char *value, void *u64, struct failure *why)
{
	int r = setting_size(value, u64, why);

	return r < 0 ? r : bitmap_granularity_check(*(uint64_t *) u64, why);
}

int setting_bitmap_region(const char *value, void *u64, struct failure *why)
{
	int r = setting_size(value, u64, why);

	return r < 0 ? r : bitmap_region_check(*(uint64_t *) u64, why);
}

int setting_bitmap_arm_limit(const char *value, void *u32, struct failure *why)
{
	int r = setting_u32(value, u32, why);

	return r < 0 ? r : bitmap_arm_limit_check(*(uint32_t *) u32, why);
}

int setting_bitmap_cold(const char *value, void *u32, struct failure *why)
{
	int r = setting_u32(value, u32, why);

	return r < 0 ? r : bitmap_cold_check(*(uint32_t *) u32, why);
}

int setting_on_bitmap_error(const char *value, void *what, struct failure *why)
{
	for (size_t i = 0; i < ARRAY_LEN(on_error_words); i++) {
		if (strcmp(value, on_error_words[i]) == 0) {
			*(enum export_on_bitmap_error *) what = (enum export_on_bitmap_error) i;
			return 0;
		}
	}
	return fail_plain(why, EINVAL, "neither lost nor stop");
}
