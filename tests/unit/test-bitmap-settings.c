/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keys of an export's file about bitmaps: what they may be, read and written. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/export-settings.h"
#include "scratch.h"

#define DEVICE "[Export]\nDevice=/x\n"

static int read_text(struct scratch *s, const char *text, struct export_settings *ret,
                     struct failure *why)
{
	return export_settings_read(scratch_write(s, "a.conf", text, strlen(text)), ret, why);
}

TEST(without_a_word_there_are_no_bitmaps)
{
	struct scratch s = scratch_start();
	struct export_settings got = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", read_text(&s, DEVICE, &got, &why), 0);
	CHECK_STR("", got.bitmaps, "");
	CHECK_STR("", got.bitmap_store, "");
	CHECK_EQ("", got.bitmap_granularity, 65536);
	CHECK_EQ("", got.bitmap_region, 4u << 20);
	CHECK_EQ("", got.bitmap_arm_limit, 1024);
	CHECK_EQ("", got.bitmap_cold, 5);
	CHECK_EQ("", got.on_bitmap_error, EXPORT_BITMAPS_LOST);
	export_settings_clear(&got);
	scratch_end(&s);
}

static void check_every(const struct export_settings *got)
{
	CHECK_STR("names", got->bitmaps, "daily  \xc3\xa4 b:c");
	CHECK_STR("store", got->bitmap_store, "/srv/web1.bitmaps");
	CHECK_EQ("granularity", got->bitmap_granularity, 16u << 20);
	CHECK_EQ("region", got->bitmap_region, UINT64_C(16) << 30);
	CHECK_EQ("arm limit", got->bitmap_arm_limit, 64);
	CHECK_EQ("cold", got->bitmap_cold, 250);
	CHECK_EQ("on error", got->on_bitmap_error, EXPORT_WRITES_STOP);
}

TEST(what_is_said_of_bitmaps_is_read_and_reads_back_when_it_was_written)
{
	static const char text[] = DEVICE "Bitmap=daily  \xc3\xa4 b:c\n"
				   "BitmapStore=/srv/web1.bitmaps\n"
				   "BitmapGranularity=16M\nBitmapRegion=16G\nBitmapArmLimit=64\n"
				   "BitmapCold=250\nOnBitmapError=stop\n";
	struct scratch s = scratch_start();
	struct export_settings got = { 0 }, again = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", read_text(&s, text, &got, &why), 0);
	check_every(&got);
	CHECK_EQ("", export_settings_write(s.dir, &got, &why), 0);
	CHECK_EQ("", export_settings_read(scratch_path(&s, "a.conf"), &again, &why), 0);
	check_every(&again);
	export_settings_clear(&got);
	export_settings_clear(&again);
	scratch_end(&s);
}

static const struct {
	const char *text;
	const char *want;       /* at the end */
} bad[] = {
	{ "Bitmap=a b a\n", "\"a\" is there twice" },
	{ "BitmapStore=bitmaps\n", "not the absolute path of a file" },
	{ "BitmapStore=/srv/\n", "not the absolute path of a file" },
	{ "BitmapGranularity=2K\n", "not a power of two between 4 KiB and 16 MiB" },
	{ "BitmapGranularity=32M\n", "not a power of two between 4 KiB and 16 MiB" },
	{ "BitmapGranularity=65537\n", "not a power of two between 4 KiB and 16 MiB" },
	{ "BitmapRegion=32K\n", "not a power of two between 64 KiB and 16 GiB" },
	{ "BitmapRegion=3M\n", "not a power of two between 64 KiB and 16 GiB" },
	{ "BitmapGranularity=1M\nBitmapRegion=512K\n", "BitmapRegion=: less than BitmapGranularity=" },
	{ "BitmapArmLimit=63\n", "not between 64 and 65536" },
	{ "BitmapArmLimit=65537\n", "not between 64 and 65536" },
	{ "BitmapCold=0\n", "not between 1 and 250" },
	{ "BitmapCold=251\n", "not between 1 and 250" },
	{ "OnBitmapError=panic\n", "neither lost nor stop" },
};

TEST(what_cannot_be_is_refused_with_a_sentence)
{
	struct scratch s = scratch_start();

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct export_settings got = { 0 };
		struct failure why = { 0 };
		char text[200];
		size_t len, want = strlen(bad[i].want);

		(void) snprintf(text, sizeof text, DEVICE "%s", bad[i].text);
		CHECK(read_text(&s, text, &got, &why) < 0);
		len = strlen(why.text);
		CHECK_STR(bad[i].text, len > want ? why.text + len - want : why.text, bad[i].want);
	}
	scratch_end(&s);
}

TEST(what_could_not_be_read_is_not_written)
{
	const struct export_settings good = EXPORT_SETTINGS_DEFAULTS;
	struct scratch s = scratch_start();

	for (int i = 0; i < 6; i++) {
		struct export_settings e = good;
		struct failure why = { 0 };

		e.label = (char *) "web1";
		e.device = (char *) "/x";
		switch (i) {
		case 0: e.bitmaps = (char *) "a a"; break;
		case 1: e.bitmap_store = (char *) "x"; break;
		case 2: e.bitmap_granularity = 1; break;
		case 3: e.bitmap_region = 65536, e.bitmap_granularity = 1 << 20; break;
		case 4: e.bitmap_arm_limit = 0; break;
		default: e.bitmap_cold = 0; break;
		}
		CHECK(export_settings_write(s.dir, &e, &why) < 0);
	}
	CHECK_EQ("empty", rmdir(s.dir), 0);
}

TEST(names_are_split_and_bounded)
{
	struct failure why = { 0 };
	const char **names = NULL;
	char many[4 * (BITMAP_NAMES_MAX + 1)] = "", longest[BITMAP_NAME_LONGEST + 2];

	CHECK_EQ("", bitmap_names_split("  a b\tc ", &names, &why), 0);
	CHECK_STR("", names[0], "a");
	CHECK_STR("", names[2], "c");
	CHECK(names[3] == NULL);
	free(names);
	CHECK_EQ("", bitmap_names_split("", &names, &why), 0);
	CHECK(names[0] == NULL);
	free(names);

	for (unsigned i = 0; i < BITMAP_NAMES_MAX; i++)
		(void) snprintf(many + 3 * i, 4, "%02x ", i);
	CHECK_EQ("", bitmap_names_check(many, &why), 0);
	strcat(many, "z");
	CHECK_EQ("", bitmap_names_check(many, &why), -EINVAL);

	memset(longest, 'x', sizeof longest);
	longest[BITMAP_NAME_LONGEST] = '\0';
	why = (struct failure) { 0 };
	CHECK_EQ("", bitmap_name_check(longest, &why), 0);
	longest[BITMAP_NAME_LONGEST] = 'x';
	longest[BITMAP_NAME_LONGEST + 1] = '\0';
	CHECK_EQ("", bitmap_name_check(longest, &why), -EINVAL);
}

TEST(a_name_has_neither_blanks_nor_control_characters)
{
	static const char *const refused[] = { "", "a b", "a\tb", "a\n", "\x7f", "\xff" };

	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		struct failure why = { 0 };

		CHECK_EQ(refused[i], bitmap_name_check(refused[i], &why), -EINVAL);
	}
}
