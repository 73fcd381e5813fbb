/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "generator/unit-name.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"

/* Text that grows up to a limit. */
struct text {
	char *at;
	size_t size, len;
	bool full;
};

static void put(struct text *t, const char *fmt, ...) PRINTF(2, 3);
static void put(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	if (t->full)
		return;
	va_start(args, fmt);
	n = vsnprintf(t->at + t->len, t->size - t->len, fmt, args);
	va_end(args);
	t->full = n < 0 || (size_t) n >= t->size - t->len;
	if (!t->full)
		t->len += (size_t) n;
}

static void put_escaped(struct text *t, char c, bool first)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789:_.";

	/* A dot in front would hide the unit's file. */
	if (strchr(plain, c) && !(first && c == '.'))
		put(t, "%c", c);
	else
		put(t, "\\x%02x", (uint8_t) c);
}

/* The next part between slashes that is not "."; its length is 0 at the end. */
static size_t next_part(const char **path)
{
	for (;;) {
		size_t len;

		*path += strspn(*path, "/");
		len = strcspn(*path, "/");
		if (len != 1 || **path != '.')
			return len;
		*path += len;
	}
}

int unit_name_of_path(const char *path, const char *suffix, char *ret, size_t size)
{
	struct text t = { .at = ret, .size = size };
	size_t len;

	if (path[0] != '/')
		return -EINVAL;
	while ((len = next_part(&path)) > 0) {
		if (len == 2 && path[0] == '.' && path[1] == '.')
			return -EINVAL;
		if (t.len > 0)
			put(&t, "-");
		for (size_t i = 0; i < len; i++)
			put_escaped(&t, path[i], t.len == 0);
		path += len;
	}
	if (t.len == 0)
		put(&t, "-");                   /* the root */
	put(&t, "%s", suffix);
	return t.full ? -ENAMETOOLONG : 0;
}

int unit_word(const char *text, char *ret, size_t size)
{
	struct text t = { .at = ret, .size = size };

	put(&t, "\"");
	for (const char *c = text; *c; c++) {
		if ((uint8_t) *c < 0x20 || *c == 0x7f)
			return -EINVAL;
		if (*c == '"' || *c == '\\')
			put(&t, "\\");
		if (*c == '%')
			put(&t, "%%");
		put(&t, "%c", *c);
	}
	put(&t, "\"");
	return t.full ? -ENAMETOOLONG : 0;
}
