/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "negotiator/refusal.h"

#include <stdarg.h>
#include <stdio.h>

void refuse(struct refusal *ret, enum reason reason, const char *fmt, ...)
{
	va_list args;

	ret->reason = reason;
	va_start(args, fmt);
	(void) vsnprintf(ret->sentence, sizeof ret->sentence, fmt, args);
	va_end(args);
}
