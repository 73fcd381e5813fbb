/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which keys wait for a restart. */
#include "check.h"

#include "export/reload.h"

static struct export_settings some(void)
{
	return (struct export_settings) {
		.device = (char *) "/dev/a", .direct = true, .max_connections = 256, .threads = 1,
	};
}

static void check(const char *where, const struct export_settings *new, const char *want)
{
	const struct export_settings old = some();
	char text[256];

	reload_name_fixed(&old, new, text, sizeof text);
	CHECK_STR(where, text, want);
}

TEST(nothing_changed_needs_no_restart)
{
	struct export_settings s = some();

	check("same", &s, "");
	s.max_connections = 3;
	s.single_writer = true;
	s.idle_timeout = 60;
	s.description = (char *) "text";
	s.start_at_boot = true;
	s.resize_reconnect = true;
	check("what takes effect at once", &s, "");
}

TEST(what_needs_a_restart_is_named)
{
	struct export_settings s = some();

	s.device = (char *) "/dev/b";
	check("device", &s, "Device=");
	s = some();
	s.read_only = true;
	check("read-only", &s, "ReadOnly=");
	s = some();
	s.memory = 1u << 30;
	check("memory", &s, "Memory=");
	s = some();
	s.threads = 2;                  /* its memory goes with it */
	check("threads", &s, "Threads=");
	s.device = (char *) "/dev/b";
	s.direct = false;
	s.shared = s.read_only = true;
	s.memory = 1u << 30;
	s.engine = EXPORT_ENGINE_THREADS;
	check("all", &s, "Device=, ReadOnly=, Direct=, Shared=, Memory=, Threads=, Engine=");
}

TEST(bitmaps_come_and_go_by_nbdctl_and_otherwise_with_a_restart)
{
	struct export_settings s = some();

	s.bitmaps = (char *) "daily";
	s.bitmap_store = (char *) "/srv/bitmaps";
	s.bitmap_granularity = s.bitmap_region = 1;
	s.bitmap_arm_limit = s.bitmap_cold = 1;
	s.on_bitmap_error = EXPORT_WRITES_STOP;
	check("all", &s, "Bitmap=, BitmapStore=, BitmapGranularity=, BitmapRegion=, BitmapArmLimit=, "
	      "BitmapCold=, OnBitmapError=");
}

TEST(memory_that_is_given_as_it_was_by_default_is_the_same)
{
	struct export_settings s = some();

	s.memory = EXPORT_MEMORY_DEFAULT;
	check("", &s, "");
}
