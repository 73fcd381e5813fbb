/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keys of an export's file, as rows, and the same file written.  What is written here
 * is checked by the functions that check what is read, so whatever can be written reads back
 * the same.  A folder of such files is export-folder.c's.
 */
#include "base/export-settings.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/access.h"
#include "base/settings.h"
#include "base/text.h"

#define SUFFIX EXPORT_FILE_SUFFIX
#define MAX_CONNECTIONS_DEFAULT 256u
#define MAX_CONNECTIONS_MAX 65535u
#define AUTO_SETTINGS __attribute__((cleanup(export_settings_clear))) struct export_settings

static const struct export_settings defaults = {
	.direct = true,
	.max_connections = MAX_CONNECTIONS_DEFAULT,
	.threads = 1,
};

/* --- what a value may be: used for reading and for writing ---------------- */

static int check_length(const char *value, size_t max, struct failure *why)
{
	if (strlen(value) > max)
		return fail_plain(why, EINVAL, "longer than %zu bytes", max);
	return 0;
}

static int check_name(const char *value, struct failure *why)
{
	if (!*value)
		return fail_plain(why, EINVAL, "the name is empty; Default=yes makes an export "
		                  "answer to the empty name");
	return check_length(value, EXPORT_NAME_MAX, why);
}

static int check_device(const char *value, struct failure *why)
{
	if (value[0] != '/')
		return fail_plain(why, EINVAL, "not an absolute path");
	return check_length(value, PATH_MAX - 1, why);
}

/* Each thread has its part of it. */
static int check_memory(uint64_t bytes, uint32_t threads, struct failure *why)
{
	char least[16];

	format_size((uint64_t) EXPORT_MEMORY_MIN * threads, least, sizeof least);
	if (bytes >= (uint64_t) EXPORT_MEMORY_MIN * threads)
		return 0;
	if (threads == 1)
		return fail_plain(why, ERANGE, "less than %s, what one client may need", least);
	return fail_plain(why, ERANGE, "less than %s, what one client of each of %u threads may "
	                  "need", least, threads);
}

static int check_max_connections(uint32_t n, struct failure *why)
{
	if (n < 1 || n > MAX_CONNECTIONS_MAX)
		return fail_plain(why, ERANGE, "not between 1 and %u", MAX_CONNECTIONS_MAX);
	return 0;
}

static int check_max_per_source(uint32_t n, struct failure *why)
{
	if (n > MAX_CONNECTIONS_MAX)
		return fail_plain(why, ERANGE, "not between 0 (no limit) and %u",
		                  MAX_CONNECTIONS_MAX);
	return 0;
}

/* Also what cannot be a rule when it is read. */
static int check_allow(const char *value, struct failure *why)
{
	struct access_list list;
	int r = access_list_parse(value, &list, why);

	if (r == 0)
		access_list_clear(&list);
	return r;
}

static int check_threads(uint32_t n, struct failure *why)
{
	if (n < 1 || n > EXPORT_THREADS_MAX)
		return fail_plain(why, ERANGE, "not between 1 and %u", EXPORT_THREADS_MAX);
	return 0;
}

static const char *const engine_names[] = {
	[EXPORT_ENGINE_AUTO] = "auto",
	[EXPORT_ENGINE_URING] = "io_uring",
	[EXPORT_ENGINE_THREADS] = "threads",
};

uint64_t export_settings_memory(const struct export_settings *s)
{
	return s->memory ? s->memory : (uint64_t) EXPORT_MEMORY_DEFAULT * s->threads;
}

/* --- reading -------------------------------------------------------------- */

static int parse_name(const char *value, void *into, struct failure *why)
{
	int r = check_name(value, why);

	return r < 0 ? r : setting_string(value, into, why);
}

static int parse_device(const char *value, void *into, struct failure *why)
{
	int r = check_device(value, why);

	return r < 0 ? r : setting_string(value, into, why);
}

static int parse_description(const char *value, void *into, struct failure *why)
{
	int r = check_length(value, EXPORT_NAME_MAX, why);

	return r < 0 ? r : setting_string(value, into, why);
}

static int parse_memory(const char *value, void *into, struct failure *why)
{
	int r = setting_size(value, into, why);

	return r < 0 ? r : check_memory(*(uint64_t *) into, 1, why);
}

static int parse_max_connections(const char *value, void *into, struct failure *why)
{
	int r = setting_u32(value, into, why);

	return r < 0 ? r : check_max_connections(*(uint32_t *) into, why);
}

static int parse_max_per_source(const char *value, void *into, struct failure *why)
{
	int r = setting_u32(value, into, why);

	return r < 0 ? r : check_max_per_source(*(uint32_t *) into, why);
}

static int parse_threads(const char *value, void *into, struct failure *why)
{
	int r = setting_u32(value, into, why);

	return r < 0 ? r : check_threads(*(uint32_t *) into, why);
}

int export_engine_parse(const char *value, void *into, struct failure *why)
{
	enum export_engine *engine = into;

	for (size_t i = 0; i < ARRAY_LEN(engine_names); i++) {
		if (strcmp(value, engine_names[i]) == 0) {
			*engine = (enum export_engine) i;
			return 0;
		}
	}
	return fail_plain(why, EINVAL, "neither auto nor io_uring nor threads");
}

#define ROW(key, parse, member) \
	{ "Export", key, parse, offsetof(struct export_settings, member) }

static const struct setting keys[] = {
	ROW("Name", parse_name, name),
	ROW("Device", parse_device, device),
	ROW("Description", parse_description, description),
	ROW("ReadOnly", setting_bool, read_only),
	ROW("Direct", setting_bool, direct),
	ROW("Shared", setting_bool, shared),
	ROW("Default", setting_bool, is_default),
	ROW("Memory", parse_memory, memory),
	ROW("MaxConnections", parse_max_connections, max_connections),
	ROW("Threads", parse_threads, threads),
	ROW("Engine", export_engine_parse, engine),
	ROW("Allow", setting_access, allow),
	ROW("MaxConnectionsPerSource", parse_max_per_source, max_per_source),
	ROW("IdleTimeout", setting_u32, idle_timeout),
	ROW("StartAtBoot", setting_bool, start_at_boot),
};

void export_settings_clear(struct export_settings *s)
{
	free(s->label);
	free(s->name);
	free(s->device);
	free(s->description);
	free(s->allow);
	*s = (struct export_settings) { 0 };
}

int export_label_check(const char *label, struct failure *why)
{
	static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789:-_.\\";
	char shown[EXPORT_LABEL_MAX + 4];

	if (*label && strlen(label) <= EXPORT_LABEL_MAX && label[0] != '.' &&
	    label[strspn(label, legal)] == '\0')
		return 0;
	printable(span_of(label), EXPORT_LABEL_MAX, shown, sizeof shown);
	return fail_plain(why, EINVAL, "\"%s\" cannot be an export's label: 1 to %u letters, "
	                  "digits and :-_.\\, not starting with a dot", shown, EXPORT_LABEL_MAX);
}

bool export_file_has_suffix(const char *name)
{
	size_t len = strlen(name);

	return len >= strlen(SUFFIX) && strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

int export_label_of(const char *path, char **ret, struct failure *why)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	AUTO_FREE char *label = NULL;
	int r;

	if (!export_file_has_suffix(name))
		return fail_plain(why, EINVAL, "%.300s: the file's name does not end in %s",
		                  path, SUFFIX);
	label = strndup(name, strlen(name) - strlen(SUFFIX));
	if (!label)
		return fail(why, ENOMEM, "cannot keep a label");
	r = export_label_check(label, why);
	if (r < 0)
		return fail_while(why, "%.300s", path);
	*ret = take_ptr(label);
	return 0;
}

int export_settings_read(const char *path, struct export_settings *ret, struct failure *why)
{
	AUTO_SETTINGS s = defaults;
	int r = export_label_of(path, &s.label, why);

	if (r < 0)
		return r;
	r = settings_read(path, keys, ARRAY_LEN(keys), &s, why);
	if (r < 0)
		return r;
	if (!s.device)
		return fail_plain(why, EINVAL, "%.300s: Device= is missing", path);
	if (check_memory(export_settings_memory(&s), s.threads, why) < 0)
		return fail_while(why, "%.300s: Memory=", path);
	if (!s.name)
		s.name = strdup(s.label);
	if (!s.description)
		s.description = strdup("");
	if (!s.allow)
		s.allow = strdup("");
	if (!s.name || !s.description || !s.allow)
		return fail(why, ENOMEM, "%.300s", path);
	*ret = s;
	s = (struct export_settings) { 0 };
	return 0;
}

/* --- writing -------------------------------------------------------------- */

/* Whether a line can carry `value`, so that the reader gives back the same. */
static int check_text(const char *key, const char *value, struct failure *why)
{
	size_t len = strlen(value);

	for (size_t i = 0; i < len; i++) {
		if ((uint8_t) value[i] < 0x20 || value[i] == 0x7f)
			return fail_plain(why, EINVAL, "%s= cannot hold a %s", key,
			                  value[i] == '\n' ? "newline" : "control character");
	}
	if (len > 0 && (value[0] == ' ' || value[len - 1] == ' '))
		return fail_plain(why, EINVAL, "%s= cannot start or end with a space", key);
	if (!is_utf8(span_of(value)))
		return fail_plain(why, EINVAL, "%s= cannot hold what is not UTF-8", key);
	return 0;
}

static int check_strings(const struct export_settings *s, struct failure *why)
{
	const struct {
		const char *key;
		const char *value;
	} strings[] = {
		{ "Name", s->name },
		{ "Device", s->device },
		{ "Description", s->description },
		{ "Allow", s->allow },
	};

	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		int r = strings[i].value ? check_text(strings[i].key, strings[i].value, why) : 0;

		if (r < 0)
			return r;
	}
	if (s->name && check_name(s->name, why) < 0)
		return fail_while(why, "Name=");
	if (check_device(s->device ? s->device : "", why) < 0)
		return fail_while(why, "Device=");
	if (s->description && check_length(s->description, EXPORT_NAME_MAX, why) < 0)
		return fail_while(why, "Description=");
	if (s->allow && *s->allow && check_allow(s->allow, why) < 0)
		return fail_while(why, "Allow=");
	return 0;
}

static int check_settings(const struct export_settings *s, struct failure *why)
{
	int r = export_label_check(s->label, why);

	if (r < 0)
		return r;
	r = check_strings(s, why);
	if (r < 0)
		return r;
	if (check_threads(s->threads, why) < 0)
		return fail_while(why, "Threads=");
	if (check_memory(export_settings_memory(s), s->threads, why) < 0)
		return fail_while(why, "Memory=");
	if (check_max_connections(s->max_connections, why) < 0)
		return fail_while(why, "MaxConnections=");
	if (check_max_per_source(s->max_per_source, why) < 0)
		return fail_while(why, "MaxConnectionsPerSource=");
	return 0;
}

static void print_bool(FILE *out, const char *key, bool value, bool normally)
{
	if (value != normally)
		(void) fprintf(out, "%s=%s\n", key, value ? "yes" : "no");
}

/* Errors stay in the stream, for fclose() to tell. */
static void print_settings(FILE *out, const struct export_settings *s)
{
	(void) fprintf(out, "[Export]\n");
	if (s->name && strcmp(s->name, s->label) != 0)
		(void) fprintf(out, "Name=%s\n", s->name);
	(void) fprintf(out, "Device=%s\n", s->device);
	if (s->description && s->description[0])
		(void) fprintf(out, "Description=%s\n", s->description);
	print_bool(out, "ReadOnly", s->read_only, defaults.read_only);
	print_bool(out, "Direct", s->direct, defaults.direct);
	print_bool(out, "Shared", s->shared, defaults.shared);
	print_bool(out, "Default", s->is_default, defaults.is_default);
	if (s->memory != defaults.memory)
		(void) fprintf(out, "Memory=%llu\n", (unsigned long long) s->memory);
	if (s->max_connections != defaults.max_connections)
		(void) fprintf(out, "MaxConnections=%u\n", s->max_connections);
	if (s->threads != defaults.threads)
		(void) fprintf(out, "Threads=%u\n", s->threads);
	if (s->engine != defaults.engine)
		(void) fprintf(out, "Engine=%s\n", engine_names[s->engine]);
	if (s->allow && s->allow[0])
		(void) fprintf(out, "Allow=%s\n", s->allow);
	if (s->max_per_source != defaults.max_per_source)
		(void) fprintf(out, "MaxConnectionsPerSource=%u\n", s->max_per_source);
	if (s->idle_timeout != defaults.idle_timeout)
		(void) fprintf(out, "IdleTimeout=%u\n", s->idle_timeout);
	print_bool(out, "StartAtBoot", s->start_at_boot, defaults.start_at_boot);
}

/* Writes to `fd`, which stays the caller's, down to the disk.  -errno. */
static int write_settings(int fd, const struct export_settings *s)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
	bool failed;

	if (!out) {
		close_fd(&copy);
		return -errno;
	}
	print_settings(out, s);
	failed = ferror(out);
	if (fclose(out) != 0)
		return -errno;
	if (failed)
		return -EIO;
	return fchmod(fd, 0644) < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* The hidden name keeps readers of the folder away until the file is whole. */
int export_settings_write(const char *dir, const struct export_settings *s, struct failure *why)
{
	AUTO_FREE char *path = NULL, *hidden = NULL;
	AUTO_FD fd = -1;
	int r = check_settings(s, why);

	if (r < 0)
		return fail_while(why, "cannot write the settings of an export");
	if (asprintf(&path, "%s/%s" SUFFIX, dir, s->label) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot write the settings of an export");
	}
	if (asprintf(&hidden, "%s/.%s.XXXXXX", dir, s->label) < 0) {
		hidden = NULL;
		return fail(why, ENOMEM, "cannot write %.300s", path);
	}
	fd = mkostemp(hidden, O_CLOEXEC);
	if (fd < 0)
		return fail(why, errno, "cannot write %.300s", path);
	r = write_settings(fd, s);
	if (r == 0 && rename(hidden, path) < 0)
		r = -errno;
	if (r < 0) {
		(void) unlink(hidden);
		return fail(why, -r, "cannot write %.300s", path);
	}
	return 0;
}
