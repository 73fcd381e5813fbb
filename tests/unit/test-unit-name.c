/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <stdlib.h>

#include "base/attr.h"
#include "generator/unit-name.h"

/* As `systemd-escape --path` of systemd 252 has them. */
static const struct {
	const char *path;
	const char *want;
} paths[] = {
	{ "/", "-" },
	{ "//./", "-" },
	{ "/dev/sda", "dev-sda" },
	{ "//dev/./vg0///web1/", "dev-vg0-web1" },
	{ "/dev/vg-0/web_1", "dev-vg\\x2d0-web_1" },
	{ "/dev/disk/by-id/wwn-0x5:1", "dev-disk-by\\x2did-wwn\\x2d0x5:1" },
	{ "/dev/disk/by-partlabel/EFI\\x20System", "dev-disk-by\\x2dpartlabel-EFI\\x5cx20System" },
	{ "/.hidden/.x", "\\x2ehidden-.x" },
	{ "/dev/a b", "dev-a\\x20b" },
	{ "/dev/%i@\"'", "dev-\\x25i\\x40\\x22\\x27" },
	{ "/srv/fl\xc3\xbctig", "srv-fl\\xc3\\xbctig" },
	{ "/dev/..x/x..", "dev-..x-x.." },
};

TEST(a_path_becomes_a_unit_as_systemd_writes_it)
{
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		char got[UNIT_NAME_SIZE] = "", want[UNIT_NAME_SIZE];

		(void) snprintf(want, sizeof want, "%s.device", paths[i].want);
		CHECK_EQ(paths[i].path, unit_name_of_path(paths[i].path, ".device", got, sizeof got), 0);
		CHECK_STR(paths[i].path, got, want);
	}
}

TEST(a_path_that_is_relative_or_climbs_has_no_unit)
{
	static const char *const bad[] = { "", "dev/sda", "..", "/dev/../sda", "/..", "/dev/.." };
	char got[UNIT_NAME_SIZE];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_EQ(bad[i], unit_name_of_path(bad[i], "", got, sizeof got), -EINVAL);
}

TEST(a_name_that_does_not_fit_is_refused_whole)
{
	char got[32];

	CHECK_EQ("fits", unit_name_of_path("/dev/a-", ".device", got, 17), 0);
	CHECK_STR("fits", got, "dev-a\\x2d.device");
	for (size_t size = 1; size < 17; size++)
		CHECK_EQ("does not", unit_name_of_path("/dev/a-", ".device", got, size), -ENAMETOOLONG);
}

TEST(a_word_keeps_its_text_from_systemds_parser)
{
	static const struct {
		const char *text, *want;
	} words[] = {
		{ "/dev/sda", "\"/dev/sda\"" },
		{ "-/a b:c", "\"-/a b:c\"" },
		{ "/100%i", "\"/100%%i\"" },
		{ "/a\\x20\"'", "\"/a\\\\x20\\\"'\"" },
	};
	char got[32];

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		CHECK_EQ(words[i].text, unit_word(words[i].text, got, sizeof got), 0);
		CHECK_STR(words[i].text, got, words[i].want);
		CHECK_EQ(words[i].text, unit_word(words[i].text, got, strlen(words[i].want) + 1), 0);
		CHECK_EQ(words[i].text, unit_word(words[i].text, got, strlen(words[i].want)),
		         -ENAMETOOLONG);
	}
	CHECK_EQ("newline", unit_word("/a\nb", got, sizeof got), -EINVAL);
}
