/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks through a store that nobody uses, and says what it holds and what is wrong with it.
 *
 * It reads, and never writes, not even to mend what the next start would.
 */
#pragma once

#include "dirty/store.h"

struct delta_report {
	uint32_t n_written;             /* pages that are on the medium */
	uint32_t n_damaged;             /* slots */
	uint32_t n_torn;                /* of those: by an unclean end, and of no harm */
	uint64_t dirty_bytes;           /* as the next start will see it */
};

struct store_report {
	struct store_geometry geometry;
	uint8_t uuid[16];
	struct catalogue catalogue;
	struct store_recovery recovery; /* as the next start will find it, regions included */
	struct delta_report deltas[AREAS_MAX];  /* by area */
	unsigned n_findings;
};

/*
 * Checks the store in `fd`, which stays open, and calls `found` for whatever is not as it should
 * be, with a line of text without its end.  0 when it could be read, whatever was found;
 * -EBADMSG and the others of store_open() when not.  *ret is large: have it on the heap, and
 * give it to store_report_clear() in any case.
 */
int store_check(int fd, void (*found)(void *userdata, const char *line), void *userdata,
                struct store_report *ret, struct failure *why);
void store_report_clear(struct store_report *report);
