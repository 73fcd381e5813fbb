/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Failures: what went wrong on our side, told once, to the operator.
 *
 * A function that can fail in more than one way takes a `struct failure *`
 * last and returns 0 or a negative errno.  The function that *sees* the cause
 * calls fail(), because only there are the path, the peer and errno all at
 * hand.  Callers add what they were trying to do with fail_while(), and the
 * one place that gives up logs the text.  Nobody in between logs.
 *
 * What a *client* did wrong is not a failure: see enum nbd_rep and
 * enum nbd_error in wire/nbd.h, which are answers, and are sent, not logged.
 *
 * The text lives in the caller's frame, so reporting ENOMEM allocates nothing.
 */
#pragma once

#include "base/attr.h"

#define FAILURE_TEXT_SIZE 512u

struct failure {
	int code;                         /* positive errno; 0 while nothing has failed */
	char text[FAILURE_TEXT_SIZE];     /* "outer step: inner step: cause: strerror", in UTF-8 */
};

/* Stores `code` (a positive errno) and the sentence, with strerror(code) added. */
int fail(struct failure *why, int code, const char *fmt, ...) PRINTF(3, 4);

/* The same without strerror(): for causes that errno only approximates. */
int fail_plain(struct failure *why, int code, const char *fmt, ...) PRINTF(3, 4);

/* Puts the step that failed before the sentence.  Returns the code again, negative. */
int fail_while(struct failure *why, const char *fmt, ...) PRINTF(2, 3);
