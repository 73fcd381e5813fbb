/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sentence in STATUS=: what an administrator sees first. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum export_state {
	STATE_SERVING,
	STATE_DRAINING,
	STATE_DRAINED,
	STATE_NO_DEVICE,
	N_STATES,
};

/* "serving": the property State. */
const char *state_word(enum export_state state);

struct report {
	enum export_state state;
	unsigned n_clients;
	uint64_t bytes_read, bytes_written;
	uint64_t stuck_seconds;         /* device I/O has not ended for so long; 0: all is well */
	bool flush_failed;
	bool settings_kept;             /* those of the file are bad */
};

#define REPORT_SIZE 256u
void report_format(const struct report *report, char *ret, size_t size);
