/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/failure.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* The code is stored and returned from one place, so the two cannot disagree. */
static int store(struct failure *why, int code, const char *fmt, va_list args) PRINTF(3, 0);
static int store(struct failure *why, int code, const char *fmt, va_list args)
{
	char raw[sizeof why->text + 4];         /* a character that is cut is behind what fits */

	assert(code > 0);
	assert(why->code == 0);         /* the first cause wins; do not overwrite it */

	why->code = code;
	(void) vsnprintf(raw, sizeof raw, fmt, args);
	make_utf8(raw, why->text, sizeof why->text);
	return -code;
}

int fail_plain(struct failure *why, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void) store(why, code, fmt, args);
	va_end(args);
	return -code;
}

int fail(struct failure *why, int code, const char *fmt, ...)
{
	va_list args;
	size_t len;

	va_start(args, fmt);
	(void) store(why, code, fmt, args);
	va_end(args);

	len = strlen(why->text);
	(void) snprintf(why->text + len, sizeof why->text - len, ": %s", strerror(code));
	return -code;
}

/* When the text is full the cause stays and the outer step is dropped. */
int fail_while(struct failure *why, const char *fmt, ...)
{
	char raw[sizeof why->text], step[3 * sizeof raw];
	size_t cause_len = strlen(why->text) + 1, len;
	va_list args;
	int raw_len;

	assert(why->code > 0);

	va_start(args, fmt);
	raw_len = vsnprintf(raw, sizeof raw, fmt, args);
	va_end(args);
	if (raw_len < 0 || (size_t) raw_len >= sizeof raw)
		return -why->code;

	make_utf8(raw, step, sizeof step);
	len = strlen(step);
	if (len + 2 + cause_len <= sizeof why->text) {
		memmove(why->text + len + 2, why->text, cause_len);
		memcpy(why->text, step, len);
		memcpy(why->text + len, ": ", 2);
	}
	return -why->code;
}
