/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/tls-psk.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/attr.h"
#include "ctl/whole-file.h"

#define KEY_BYTES 32u

/* Where the line of `name` begins; NULL if there is none.  A line's last colon is before the key, as in
 * nbd-tls: an identity may have some. */
static char *find_line(char *text, const char *name)
{
	size_t len = strlen(name);

	for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL)
		if (strncmp(line, name, len) == 0 && line[len] == ':' &&
		    strcspn(line + len + 1, ":") >= strcspn(line + len + 1, "\n"))
			return line;
	return NULL;
}

/* Its text, or "" if there is none. */
static int read_keys(const char *path, char **ret, struct failure *why)
{
	size_t len;

	if (access(path, F_OK) == 0)
		return whole_file_read(path, ret, &len, why);
	*ret = calloc(1, 1);
	return *ret ? 0 : fail(why, ENOMEM, "cannot read %.300s", path);
}

/* Forgets the line of `name`, in place.  Whether there was one. */
static bool cut_line(char *text, const char *name)
{
	char *line = find_line(text, name);
	char *next = line ? strchr(line, '\n') : NULL;

	if (!line)
		return false;
	if (next)
		memmove(line, next + 1, strlen(next + 1) + 1);
	else
		*line = '\0';
	return true;
}

static void forget(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
}

bool tls_psk_has(const char *path, const char *name)
{
	AUTO_FREE char *text = NULL;
	bool has = read_keys(path, &text, &(struct failure) { 0 }) == 0 && find_line(text, name);

	forget(text);
	return has;
}

/* "NAME:KEY\n" */
static int make_line(const char *name, char *ret, size_t size, struct failure *why)
{
	uint8_t key[KEY_BYTES];
	int len = snprintf(ret, size, "%s:", name);

	if (getrandom(key, sizeof key, 0) != sizeof key)
		return fail(why, errno, "cannot make a key");
	for (size_t i = 0; i < sizeof key; i++)
		len += snprintf(ret + len, size - (size_t) len, "%02x", key[i]);
	(void) snprintf(ret + len, size - (size_t) len, "\n");
	explicit_bzero(key, sizeof key);
	return 0;
}

/* `text` and the line. */
static int write_keys(const char *path, const char *text, const char *line, struct failure *why)
{
	AUTO_FREE char *all = NULL;
	size_t len = strlen(text);
	int r;

	if (asprintf(&all, "%s%s%s", text, len && text[len - 1] != '\n' ? "\n" : "", line) < 0) {
		all = NULL;
		return fail(why, ENOMEM, "cannot write %.300s", path);
	}
	r = whole_file_write(path, all, strlen(all), 0600, why);
	forget(all);
	return r;
}

int tls_psk_make(const char *path, const char *own, const char *name, struct failure *why)
{
	AUTO_FREE char *text = NULL;
	char line[256];
	int r = make_line(name, line, sizeof line, why);

	r = r < 0 ? r : read_keys(path, &text, why);
	if (r == 0)
		(void) cut_line(text, name);
	r = r < 0 ? r : whole_file_write(own, line, strlen(line), 0600, why);
	r = r < 0 ? r : write_keys(path, text, line, why);
	forget(text);
	explicit_bzero(line, sizeof line);
	return r;
}

int tls_psk_remove(const char *path, const char *name, struct failure *why)
{
	AUTO_FREE char *text = NULL;
	int r = read_keys(path, &text, why);
	bool had = r == 0 && cut_line(text, name);

	if (had)
		r = write_keys(path, text, "", why);
	forget(text);
	return r < 0 ? r : had;
}
