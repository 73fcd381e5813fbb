/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/settings.h"
#include "scratch.h"

struct things {
	char *name;
	char *other;
	bool flag;
	uint64_t size;
	uint32_t count;
};

#define ROW(section, key, parse, member) \
	{ section, key, parse, offsetof(struct things, member), false }

static const struct setting table[] = {
	ROW("Main", "Name", setting_string, name),
	ROW("Other", "Name", setting_string, other),
	ROW("Main", "Flag", setting_bool, flag),
	ROW("Main", "Memory", setting_size, size),
	ROW("Other", "Count", setting_u32, count),
};

static void things_clear(struct things *t)
{
	free(t->name);
	free(t->other);
	*t = (struct things) { 0 };
}

/* Reads `text` as the file "f". */
static int read_bytes(struct scratch *s, const void *text, size_t len, struct things *ret,
                      struct failure *why)
{
	return settings_read(scratch_write(s, "f", text, len), table, ARRAY_LEN(table), ret, why);
}

TEST(a_file_is_read)
{
	static const char text[] = "# a comment\n"
				   "; another\n"
				   "\n"
				   "[Main]\n"
				   "Name=a = b # not a comment \n"
				   "  Flag \t=\t yes\n"
				   "Memory=64M\n"
				   " [Other] \n"
				   "Name=\n"
				   "[Main]\n"
				   "[Other]\n"
				   "Count=4294967295";
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	struct things got = { 0 };

	CHECK_EQ("", read_bytes(&s, text, strlen(text), &got, &why), 0);
	CHECK_STR("why", why.text, "");
	CHECK_STR("name", got.name, "a = b # not a comment");
	CHECK_STR("other", got.other, "");
	CHECK(got.flag);
	CHECK_EQ("size", got.size, 64u << 20);
	CHECK_EQ("count", got.count, UINT32_MAX);
	things_clear(&got);
	scratch_end(&s);
}

#define TEXT(literal) (literal), sizeof(literal) - 1

static const struct {
	const char *text;
	size_t len;
	const char *want;       /* behind "PATH:" */
} bad[] = {
	{ TEXT("[Main]\nMemory=banana\n"),
	  "2: Memory=banana: not a size; write for example 64M" },
	{ TEXT("[Main]\nMemory=16E\n"), "2: Memory=16E: too large" },
	{ TEXT("[Main]\nFlag=maybe\n"), "2: Flag=maybe: write yes or no" },
	{ TEXT("[Other]\nCount=4K\n"), "2: Count=4K: not a number" },
	{ TEXT("[Other]\nCount=\n"), "2: Count=: not a number" },
	{ TEXT("[Other]\nCount=4294967296\n"), "2: Count=4294967296: too large" },
	{ TEXT("[Other]\nCount=99999999999999999999\n"),
	  "2: Count=99999999999999999999: too large" },
	{ TEXT("Name=x\n[Main]\n"), "1: Name= stands before any [Section]" },
	{ TEXT("\n\n[Nain]\n"), "3: [Nain]: not a section of this file" },
	{ TEXT("[main]\n"), "1: [main]: not a section of this file" },
	{ TEXT("[]\n"), "1: []: not a section of this file" },
	{ TEXT("[\n"), "1: [: the ] is missing" },
	{ TEXT("[Main\n"), "1: [Main: the ] is missing" },
	{ TEXT("[Main]\nNaem=x\n"), "2: Naem=: not a key of this section" },
	{ TEXT("[Main]\nname=x\n"), "2: name=: not a key of this section" },
	{ TEXT("[Main]\nCount=1\n"), "2: Count=: not a key of this section" },
	{ TEXT("[Main]\n=x\n"), "2: =: not a key of this section" },
	{ TEXT("[Main]\nName\n"), "2: Name: neither [Section] nor Key=value" },
	{ TEXT("[Main]\nName=x\n[Other]\n[Main]\nName=x\n"), "5: Name= is given twice" },
	{ TEXT("[Main]\nName=a\0b\n"), "2: not UTF-8, or with a NUL in it: Name=a" },
	{ TEXT("[Main]\n# \xff\n"), "2: not UTF-8, or with a NUL in it: # \xef\xbf\xbd" },
	{ TEXT("[Main]\nName=\xc0\xaf\n"),
	  "2: not UTF-8, or with a NUL in it: Name=\xef\xbf\xbd\xef\xbf\xbd" },
	{ TEXT("[Main]\nName=a\033b\n"),
	  "2: Name=a\xef\xbf\xbd" "b: there is a control character in it" },
	{ TEXT("[Main]\nName=a\tb\n"),
	  "2: Name=a\xef\xbf\xbd" "b: there is a control character in it" },
	{ TEXT("[Main]\nName=x\r\n"),
	  "2: Name=x\xef\xbf\xbd: there is a control character in it" },
};

TEST(what_is_wrong_is_named_with_file_and_line)
{
	struct scratch s = scratch_start();

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct failure why = { 0 };
		struct things got = { 0 };
		char want[4400];

		CHECK(read_bytes(&s, bad[i].text, bad[i].len, &got, &why) < 0);
		(void) snprintf(want, sizeof want, "%s:%s", scratch_path(&s, "f"), bad[i].want);
		CHECK_STR("", why.text, want);
		CHECK(why.code > 0);
		things_clear(&got);
	}
	scratch_end(&s);
}

TEST(a_line_may_have_its_limit_and_no_more)
{
	static char text[16 + SETTINGS_MAX_LINE];
	struct scratch s = scratch_start();
	size_t start = strlen("[Main]\n"), name_len = SETTINGS_MAX_LINE - strlen("Name=");

	memset(text, 'x', sizeof text);
	memcpy(text, "[Main]\nName=", start + strlen("Name="));
	for (size_t over = 0; over < 2; over++) {
		struct failure why = { 0 };
		struct things got = { 0 };
		int r;

		text[start + SETTINGS_MAX_LINE + over] = '\n';
		r = read_bytes(&s, text, start + SETTINGS_MAX_LINE + over + 1, &got, &why);
		CHECK_EQ("limit", r, over ? -EINVAL : 0);
		if (!over)
			CHECK_EQ("whole", strlen(got.name), name_len);
		else
			CHECK(strstr(why.text, ":2: the line is too long: Name=xxx") != NULL);
		things_clear(&got);
		text[start + SETTINGS_MAX_LINE] = 'x';
	}
	scratch_end(&s);
}

TEST(an_empty_file_says_nothing)
{
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	struct things got = { .count = 7 };

	CHECK_EQ("", read_bytes(&s, "", 0, &got, &why), 0);
	CHECK_EQ("", got.count, 7);
	scratch_end(&s);
}

TEST(only_regular_files_of_sane_size_are_read)
{
	static const char line[] = "# 4711\n";
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	struct things got = { 0 };
	const char *path = scratch_path(&s, "fifo");
	FILE *out;

	CHECK_EQ("", mkfifo(path, 0600), 0);
	CHECK(settings_read(path, table, ARRAY_LEN(table), &got, &why) < 0);
	CHECK(strstr(why.text, "fifo: not a regular file") != NULL);

	why.code = 0;
	CHECK(settings_read(s.dir, table, ARRAY_LEN(table), &got, &why) < 0);
	CHECK(strstr(why.text, "not a regular file") != NULL);

	why.code = 0;
	path = scratch_path(&s, "none");
	CHECK_EQ("", settings_read(path, table, ARRAY_LEN(table), &got, &why), -ENOENT);
	CHECK(strstr(why.text, "/none: No such file") != NULL);

	why.code = 0;
	path = scratch_path(&s, "huge");
	out = fopen(path, "w");
	for (size_t i = 0; i < (256u << 10) / strlen(line) + 1; i++)
		(void) fputs(line, out);
	(void) fclose(out);
	CHECK_EQ("", settings_read(path, table, ARRAY_LEN(table), &got, &why), -EFBIG);
	CHECK(strstr(why.text, "/huge: larger than 256 KiB") != NULL);
	scratch_end(&s);
}

TEST(a_long_path_does_not_hide_what_is_wrong)
{
	struct scratch s = scratch_start();
	char folder[512] = "", path[700];
	struct failure why = { 0 };
	struct things got = { 0 };

	for (int depth = 0; depth < 2; depth++) {
		size_t len = strlen(folder);

		folder[len] = depth ? '/' : 'd';
		memset(folder + len + 1, 'd', 200);
		CHECK_EQ("", mkdir(scratch_path(&s, folder), 0700), 0);
	}
	(void) snprintf(path, sizeof path, "%s/f", folder);
	CHECK(settings_read(scratch_write(&s, path, "[X]\n", 4), table, ARRAY_LEN(table), &got,
	                    &why) < 0);
	CHECK(strstr(why.text, "d/f:1: [X]: not a section") != NULL);
	scratch_end(&s);
}
