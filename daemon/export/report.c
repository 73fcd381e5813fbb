/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/report.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/text.h"

static const char *const words[] = {
	[STATE_SERVING] = "serving",
	[STATE_DRAINING] = "draining",
	[STATE_DRAINED] = "drained",
	[STATE_NO_DEVICE] = "no-device",
};
_Static_assert(ARRAY_LEN(words) == N_STATES, "every state has its word");

static const char *const openings[] = {
	[STATE_SERVING] = "",
	[STATE_DRAINING] = "Draining: ",
	[STATE_DRAINED] = "Drained, admits nobody: ",
	[STATE_NO_DEVICE] = "The device is gone: ",
};

const char *state_word(enum export_state state)
{
	return words[state];
}

void report_format(const struct report *report, char *ret, size_t size)
{
	char clients[32] = "no clients", read[32], written[32], stuck[64] = "";

	if (report->n_clients)
		(void) snprintf(clients, sizeof clients, "%u client%s", report->n_clients,
		                report->n_clients == 1 ? "" : "s");
	format_size(report->bytes_read, read, sizeof read);
	format_size(report->bytes_written, written, sizeof written);
	if (report->stuck_seconds)
		(void) snprintf(stuck, sizeof stuck, "; the device has not answered for %" PRIu64 " s",
		                report->stuck_seconds);
	(void) snprintf(ret, size, "%s%s, %s read, %s written%s%s%s", openings[report->state], clients,
	                read, written, stuck,
	                report->flush_failed ? "; FLUSH and FUA fail, since a flush failed" : "",
	                report->settings_kept ? "; its file is bad, older settings hold" : "");
}
