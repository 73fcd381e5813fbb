/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/bitmap-map.h"

#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/attr.h"

#define WIDTH_DEFAULT 64u
#define WIDTH_MAX 1024u

/* None of it, some, all. */
static const char *const blocks[] = { "\u00b7", "\u2581", "\u2582", "\u2583", "\u2584",
                                      "\u2585", "\u2586", "\u2587", "\u2588" };
static const char *const plain[] = { ".", ":", "-", "=", "+", "*", "%", "@", "#" };

uint32_t bitmap_map_width(void)
{
	struct winsize window;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col < 2)
		return WIDTH_DEFAULT;
	return window.ws_col < WIDTH_MAX ? window.ws_col : WIDTH_MAX;
}

/* nbdctl's own locale is UTF-8 in any case. */
bool bitmap_map_blocks(void)
{
	locale_t of_user = newlocale(LC_CTYPE_MASK, "", (locale_t) 0);
	bool utf8;

	if (!of_user)
		return false;
	utf8 = strcmp(nl_langinfo_l(CODESET, of_user), "UTF-8") == 0;
	freelocale(of_user);
	return utf8;
}

/* Only what is clean looks clean, and only what is all dirty looks so. */
static size_t height(uint64_t dirty, uint64_t whole)
{
	const size_t full = ARRAY_LEN(blocks) - 1;
	size_t up;

	if (dirty == 0 || whole == 0)
		return 0;
	if (dirty >= whole)
		return full;
	up = 1 + (size_t) ((__uint128_t) dirty * (full - 1) / whole);
	return up < full ? up : full - 1;
}

void bitmap_map_draw(FILE *out, const uint64_t *dirty, uint32_t n, uint64_t size, bool ascii)
{
	uint64_t before = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t end = (uint64_t) ((__uint128_t) size * (i + 1) / n);
		size_t up = height(dirty[i], end - before);

		(void) fputs(ascii ? plain[up] : blocks[up], out);
		before = end;
	}
	(void) fputc('\n', out);
}
