/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reader of configuration files.  Takes a file into memory, whole and bounded, and
 * goes through its lines; refuses what it does not understand, with file and line.
 */
#include "base/settings.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"

#define MAX_FILE (256u << 10)
#define VALUE_SHOWN 64u         /* bytes of a key or a value in a message */
#define PATH_SHOWN 200u
#define BLANKS " \t"

struct reader {
	const char *path;
	const struct setting *table;
	size_t n;
	void *into;
	unsigned line;
	const char *section;    /* one of the table's; NULL before the first */
	uint64_t seen;          /* bit i: row i was given */
};

/* The end of a long path is what tells it from others. */
static const char *shown_path(const char *path)
{
	size_t len = strlen(path);

	return len > PATH_SHOWN ? path + len - PATH_SHOWN : path;
}

/* Adds where it is in the file. */
static int fail_at_line(const struct reader *in, struct failure *why)
{
	return fail_while(why, "%s:%u", shown_path(in->path), in->line);
}

/* Fails about `what`, a piece of the line, with the sentence's rest on both its sides. */
static int refuse(const struct reader *in, struct failure *why, const char *before,
                  const char *what, const char *after)
{
	char shown[VALUE_SHOWN + 4];

	printable(span_of(what), VALUE_SHOWN, shown, sizeof shown);
	(void) fail_plain(why, EINVAL, "%s%s%s", before, shown, after);
	return fail_at_line(in, why);
}

/* Cuts blanks off both ends, in place. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, BLANKS);
	len = strlen(text);
	while (len > 0 && strchr(BLANKS, text[len - 1]))
		len--;
	text[len] = '\0';
	return text;
}

static bool has_control(const char *text)
{
	for (; *text; text++) {
		if ((uint8_t) *text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

static int read_section(struct reader *in, char *line, struct failure *why)
{
	size_t len = strlen(line);

	if (line[len - 1] != ']')
		return refuse(in, why, "", line, ": the ] is missing");
	line[len - 1] = '\0';
	for (size_t i = 0; i < in->n; i++) {
		if (strcmp(in->table[i].section, line + 1) == 0) {
			in->section = in->table[i].section;
			return 0;
		}
	}
	return refuse(in, why, "[", line + 1, "]: not a section of this file");
}

static int read_value(struct reader *in, size_t row, const char *value, struct failure *why)
{
	const struct setting *s = &in->table[row];
	char shown[VALUE_SHOWN + 4];
	int r;

	if (in->seen & 1ull << row && !s->many)
		return refuse(in, why, "", s->key, "= is given twice");
	in->seen |= 1ull << row;

	if (has_control(value))
		r = fail_plain(why, EINVAL, "there is a control character in it");
	else
		r = s->parse(value, (char *) in->into + s->offset, why);
	if (r < 0) {
		printable(span_of(value), VALUE_SHOWN, shown, sizeof shown);
		(void) fail_while(why, "%s=%s", s->key, shown);
		return fail_at_line(in, why);
	}
	return 0;
}

static int read_line(struct reader *in, char *line, struct failure *why)
{
	char *key = trim(line), *equals;

	if (!*key || *key == '#' || *key == ';')
		return 0;
	if (*key == '[')
		return read_section(in, key, why);

	equals = strchr(key, '=');
	if (!equals)
		return refuse(in, why, "", key, ": neither [Section] nor Key=value");
	*equals = '\0';
	key = trim(key);
	if (!in->section)
		return refuse(in, why, "", key, "= stands before any [Section]");
	for (size_t row = 0; row < in->n; row++) {
		if (strcmp(in->table[row].section, in->section) == 0 &&
		    strcmp(in->table[row].key, key) == 0)
			return read_value(in, row, trim(equals + 1), why);
	}
	return refuse(in, why, "", key, "=: not a key of this section");
}

/* `text` ends with a NUL at `len`, which the last line's end may be. */
static int read_lines(struct reader *in, char *text, size_t len, struct failure *why)
{
	char *end = text + len;

	while (text < end) {
		char *stop = memchr(text, '\n', (size_t) (end - text));
		size_t line_len = (size_t) ((stop ? stop : end) - text);
		int r;

		in->line++;
		text[line_len] = '\0';
		if (line_len > SETTINGS_MAX_LINE)
			r = refuse(in, why, "the line is too long: ", text, "");
		else if (!is_utf8((struct span) { (const uint8_t *) text, line_len }))
			r = refuse(in, why, "not UTF-8, or with a NUL in it: ", text, "");
		else
			r = read_line(in, text, why);
		if (r < 0)
			return r;
		text += line_len + 1;
	}
	return 0;
}

/* Non-blocking, because opening a FIFO would wait before it can be refused. */
static int open_regular(const char *path, int *ret_fd, struct failure *why)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(why, errno, "cannot read %s", shown_path(path));
	if (!S_ISREG(st.st_mode))
		return fail_plain(why, EINVAL, "cannot read %s: not a regular file",
		                  shown_path(path));
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Returns the length, below `size`, or fails. */
static ssize_t read_whole(const char *path, char *ret, size_t size, struct failure *why)
{
	AUTO_FD fd = -1;
	size_t len = 0;
	int r = open_regular(path, &fd, why);

	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = read(fd, ret + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(why, errno, "cannot read %s", shown_path(path));
		if (n == 0)
			break;
		len += (size_t) n;
		if (len == size)
			return fail_plain(why, EFBIG, "cannot read %s: larger than %u KiB",
			                  shown_path(path), MAX_FILE >> 10);
	}
	return (ssize_t) len;
}

int settings_read(const char *path, const struct setting *table, size_t n, void *ret,
                  struct failure *why)
{
	struct reader in = { .path = path, .table = table, .n = n, .into = ret };
	AUTO_FREE char *text = malloc(MAX_FILE + 1);
	ssize_t len;

	assert(n <= 64);                        /* one bit of `seen` each */
	if (!text)
		return fail(why, ENOMEM, "cannot read %s", shown_path(path));
	len = read_whole(path, text, MAX_FILE + 1, why);
	if (len < 0)
		return (int) len;
	text[len] = '\0';
	return read_lines(&in, text, (size_t) len, why);
}

int setting_string(const char *value, void *char_pointer, struct failure *why)
{
	char **into = char_pointer;
	char *copy = strdup(value);

	if (!copy)
		return fail(why, ENOMEM, "cannot keep it");
	free(*into);
	*into = copy;
	return 0;
}

int setting_bool(const char *value, void *boolean, struct failure *why)
{
	if (parse_bool(value, boolean) < 0)
		return fail_plain(why, EINVAL, "write yes or no");
	return 0;
}

int setting_size(const char *value, void *u64, struct failure *why)
{
	int r = parse_size(value, u64);

	if (r == -ERANGE)
		return fail_plain(why, ERANGE, "too large");
	if (r < 0)
		return fail_plain(why, EINVAL, "not a size; write for example 64M");
	return 0;
}

int setting_u32(const char *value, void *u32, struct failure *why)
{
	uint64_t n;
	int r = strspn(value, "0123456789") == strlen(value) ? parse_size(value, &n) : -EINVAL;

	if (r == -EINVAL)
		return fail_plain(why, EINVAL, "not a number");
	if (r < 0 || n > UINT32_MAX)
		return fail_plain(why, ERANGE, "too large");
	*(uint32_t *) u32 = (uint32_t) n;
	return 0;
}
