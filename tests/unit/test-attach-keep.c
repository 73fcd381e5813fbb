/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What nbd-attach is told by its file, and how long it waits between connections.
 */
#include "check.h"

#include <errno.h>

#include "attach/attach.h"
#include "attach/backoff.h"
#include "attach/settings.h"
#include "base/attr.h"
#include "scratch.h"

static int read_text(const char *text, struct attach_settings *ret, struct failure *why)
{
	struct scratch s = scratch_start();
	int r = attach_settings_read(scratch_write(&s, "db.conf", text, strlen(text)), ret, why);

	scratch_end(&s);
	return r;
}

TEST(a_uri_is_enough)
{
	struct attach_settings s = { 0 };
	struct failure why = { 0 };

	CHECK_EQ(why.text, read_text("[Attach]\nURI=nbd://host/db\n", &s, &why), 0);
	CHECK_STR("", s.uri, "nbd://host/db");
	CHECK(!s.device && s.connections == 1 && !s.read_only && s.load_module);
	CHECK_EQ("", s.timeout, ATTACH_TIMEOUT);
	CHECK_EQ("", s.dead_timeout, ATTACH_DEAD_TIMEOUT);
	attach_settings_clear(&s);
}

TEST(every_key_is_read)
{
	struct attach_settings s = { 0 };
	struct failure why = { 0 };

	CHECK_EQ(why.text, read_text("[Attach]\nURI=nbd://h/db\nDevice=/dev/nbd3\nConnections=4\n"
	                             "Timeout=5\nDeadConnectionTimeout=0\nReadOnly=yes\n"
	                             "LoadModule=no\n", &s, &why), 0);
	CHECK_STR("", s.device, "/dev/nbd3");
	CHECK(s.connections == 4 && s.timeout == 5 && s.dead_timeout == 0);
	CHECK(s.read_only && !s.load_module);
	attach_settings_clear(&s);
}

static const struct {
	const char *text, *sentence;
} bad[] = {
	{ "", "URI= is missing" },
	{ "[Attach]\n", "URI= is missing" },
	{ "[Export]\n", "[Export]" },
	{ "[Attach]\nURI=http://h\n", "db.conf:2" },
	{ "[Attach]\nURI=nbds://me@h/db\n", "pre-shared key" },
	{ "[Attach]\nURI=nbd://h/db\nDevice=/dev/sda\n", "no nbd device" },
	{ "[Attach]\nURI=nbd://h/db\nConnections=0\n", "between 1 and 64" },
	{ "[Attach]\nURI=nbd://h/db\nConnections=65\n", "between 1 and 64" },
	{ "[Attach]\nURI=nbd://h/db\nTimeout=soon\n", "not a number" },
	{ "[Attach]\nURI=nbd://h/db\nReadOnly=maybe\n", "yes or no" },
	{ "[Attach]\nURI=nbd://h/db\nSpeed=high\n", "Speed" },
};

TEST(what_cannot_be_right_is_refused_with_words)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct attach_settings s = { .connections = 99 };
		struct failure why = { 0 };

		CHECK(read_text(bad[i].text, &s, &why) < 0);
		CHECK_EQ("untouched", s.connections, 99);
		if (!strstr(why.text, bad[i].sentence))
			CHECK_STR(bad[i].text, why.text, bad[i].sentence);
	}
}

TEST(failures_are_further_and_further_apart)
{
	struct backoff b = { 0 };
	uint64_t before = 0;

	CHECK_EQ("", backoff_after_failure(&b), BACKOFF_FIRST);
	for (int i = 0; i < 20; i++) {
		uint64_t wait = backoff_after_failure(&b);

		CHECK(wait > before || wait == BACKOFF_MOST);
		before = wait;
	}
	CHECK_EQ("", before, BACKOFF_MOST);
}

TEST(a_connection_that_lasted_is_replaced_at_once_and_one_that_did_not_later)
{
	struct backoff b = { 0 };

	(void) backoff_after_failure(&b);
	backoff_after_success(&b, 1000000);
	CHECK_EQ("soon", backoff_after_loss(&b, 1000000 + BACKOFF_LASTED - 1), 2 * BACKOFF_FIRST);
	backoff_after_success(&b, 1000000);
	CHECK_EQ("late", backoff_after_loss(&b, 1000000 + BACKOFF_LASTED), 0);
	CHECK_EQ("anew", backoff_after_failure(&b), BACKOFF_FIRST);
}
