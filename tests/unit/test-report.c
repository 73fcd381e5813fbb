/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sentence that systemctl status shows. */
#include "check.h"

#include "base/attr.h"
#include "export/report.h"

static const struct {
	struct report report;
	const char *text;
} rows[] = {
	{ { 0 }, "no clients, 0 bytes read, 0 bytes written" },
	{ { .n_clients = 1, .bytes_read = 512 }, "1 client, 512 bytes read, 0 bytes written" },
	{ { .n_clients = 3, .bytes_read = 1288490189, .bytes_written = 310 << 20 },
	  "3 clients, 1.2 GiB read, 310 MiB written" },
	{ { .state = STATE_DRAINING, .n_clients = 2 },
	  "Draining: 2 clients, 0 bytes read, 0 bytes written" },
	{ { .state = STATE_DRAINED },
	  "Drained, admits nobody: no clients, 0 bytes read, 0 bytes written" },
	{ { .state = STATE_NO_DEVICE, .n_clients = 1 },
	  "The device is gone: 1 client, 0 bytes read, 0 bytes written" },
	{ { .n_clients = 1, .stuck_seconds = 17, .flush_failed = true },
	  "1 client, 0 bytes read, 0 bytes written; the device has not answered for 17 s; "
	  "FLUSH and FUA fail, since a flush failed" },
	{ { .settings_kept = true },
	  "no clients, 0 bytes read, 0 bytes written; its file is bad, older settings hold" },
};

TEST(every_state_has_its_sentence)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[REPORT_SIZE];

		report_format(&rows[i].report, text, sizeof text);
		CHECK_STR(rows[i].text, text, rows[i].text);
	}
}

TEST(the_longest_sentence_fits)
{
	const struct report report = { STATE_DRAINED, UINT32_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
	                               true, true };
	char text[REPORT_SIZE];

	report_format(&report, text, sizeof text);
	CHECK(strlen(text) < sizeof text - 1);
	CHECK(strstr(text, "a flush failed") != NULL);
	CHECK(strstr(text, "older settings hold") != NULL);
}

TEST(states_have_words)
{
	CHECK_STR("", state_word(STATE_SERVING), "serving");
	CHECK_STR("", state_word(STATE_DRAINING), "draining");
	CHECK_STR("", state_word(STATE_DRAINED), "drained");
	CHECK_STR("", state_word(STATE_NO_DEVICE), "no-device");
}
