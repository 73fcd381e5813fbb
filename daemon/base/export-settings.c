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
#include "base/identity.h"
#include "base/settings.h"
#include "base/text.h"

#define SUFFIX EXPORT_FILE_SUFFIX
#define AUTO_SETTINGS __attribute__((cleanup(export_settings_clear))) struct export_settings

static const struct export_settings defaults = EXPORT_SETTINGS_DEFAULTS;

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

/* systemd's units take no "..", and what is above a link may change. */
static bool goes_up(const char *path)
{
	for (const char *at = path; (at = strstr(at, "/..")); at += 3)
		if (at[3] == '/' || at[3] == '\0')
			return true;
	return false;
}

static int check_device(const char *value, struct failure *why)
{
	if (value[0] != '/')
		return fail_plain(why, EINVAL, "not an absolute path");
	if (goes_up(value))
		return fail_plain(why, EINVAL, "a path with .. in it");
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
	if (n < 1 || n > EXPORT_CONNECTIONS_MAX)
		return fail_plain(why, ERANGE, "not between 1 and %u", EXPORT_CONNECTIONS_MAX);
	return 0;
}

static int check_max_per_source(uint32_t n, struct failure *why)
{
	if (n > EXPORT_CONNECTIONS_MAX)
		return fail_plain(why, ERANGE, "not between 0 (no limit) and %u",
		                  EXPORT_CONNECTIONS_MAX);
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

/* What is written down at a time is of one region, and whole granules. */
static int check_bitmap_sizes(const struct export_settings *s, struct failure *why)
{
	if (s->bitmap_region >= s->bitmap_granularity)
		return 0;
	return fail_plain(why, ERANGE, "less than BitmapGranularity=");
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

int export_connections_parse(const char *value, void *into, struct failure *why)
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
	{ "Export", key, parse, offsetof(struct export_settings, member), false }
#define ROW_MANY(key, parse, member) \
	{ "Export", key, parse, offsetof(struct export_settings, member), true }

static const struct setting keys[] = {
	ROW("Name", parse_name, name),
	ROW("Device", parse_device, device),
	ROW("Description", parse_description, description),
	ROW("ReadOnly", setting_bool, read_only),
	ROW("Direct", setting_bool, direct),
	ROW("Shared", setting_bool, shared),
	ROW("Default", setting_bool, is_default),
	ROW("Memory", parse_memory, memory),
	ROW("MaxConnections", export_connections_parse, max_connections),
	ROW("Threads", parse_threads, threads),
	ROW("Engine", export_engine_parse, engine),
	ROW("Allow", setting_access, allow),
	ROW("TLS", setting_tls_policy, tls),
	ROW_MANY("Identity", setting_identity, identity),
	ROW("MaxConnectionsPerSource", parse_max_per_source, max_per_source),
	ROW("SingleWriter", setting_bool, single_writer),
	ROW("IdleTimeout", setting_u32, idle_timeout),
	ROW("StartAtBoot", setting_bool, start_at_boot),
	ROW("ResizeReconnect", setting_bool, resize_reconnect),
	ROW("Bitmap", setting_bitmap_names, bitmaps),
	ROW("BitmapStore", setting_bitmap_store, bitmap_store),
	ROW("BitmapGranularity", setting_bitmap_granularity, bitmap_granularity),
	ROW("BitmapRegion", setting_bitmap_region, bitmap_region),
	ROW("BitmapArmLimit", setting_bitmap_arm_limit, bitmap_arm_limit),
	ROW("BitmapCold", setting_bitmap_cold, bitmap_cold),
	ROW("OnBitmapError", setting_on_bitmap_error, on_bitmap_error),
};

void export_settings_clear(struct export_settings *s)
{
	free(s->label);
	free(s->name);
	free(s->device);
	free(s->description);
	free(s->allow);
	free(s->identity);
	free(s->bitmaps);
	free(s->bitmap_store);
	*s = (struct export_settings) { 0 };
}

/* Strings that were not given. */
static int fill_in(const char *path, struct export_settings *s, struct failure *why)
{
	char **empty[] = { &s->description, &s->allow, &s->identity, &s->bitmaps,
	                   &s->bitmap_store };
	bool good = s->name || (s->name = strdup(s->label));

	for (size_t i = 0; good && i < ARRAY_LEN(empty); i++)
		good = *empty[i] || (*empty[i] = strdup(""));
	return good ? 0 : fail(why, ENOMEM, "%.300s", path);
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
	if (check_bitmap_sizes(&s, why) < 0)
		return fail_while(why, "%.300s: BitmapRegion=", path);
	if (identities_check(s.identity, s.tls, why) < 0)
		return fail_while(why, "%.300s: Identity=", path);
	r = fill_in(path, &s, why);
	if (r < 0)
		return r;
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
		{ "Bitmap", s->bitmaps },
		{ "BitmapStore", s->bitmap_store },
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

static int check_bitmaps(const struct export_settings *s, struct failure *why)
{
	if (s->bitmaps && bitmap_names_check(s->bitmaps, why) < 0)
		return fail_while(why, "Bitmap=");
	if (s->bitmap_store && *s->bitmap_store && bitmap_store_check(s->bitmap_store, why) < 0)
		return fail_while(why, "BitmapStore=");
	if (bitmap_granularity_check(s->bitmap_granularity, why) < 0)
		return fail_while(why, "BitmapGranularity=");
	if (bitmap_region_check(s->bitmap_region, why) < 0 || check_bitmap_sizes(s, why) < 0)
		return fail_while(why, "BitmapRegion=");
	if (bitmap_arm_limit_check(s->bitmap_arm_limit, why) < 0)
		return fail_while(why, "BitmapArmLimit=");
	if (bitmap_cold_check(s->bitmap_cold, why) < 0)
		return fail_while(why, "BitmapCold=");
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
	if (identities_check(s->identity, s->tls, why) < 0)
		return fail_while(why, "Identity=");
	return check_bitmaps(s, why);
}

static void print_bool(FILE *out, const char *key, bool value, bool normally)
{
	if (value != normally)
		(void) fprintf(out, "%s=%s\n", key, value ? "yes" : "no");
}

static void print_number(FILE *out, const char *key, uint64_t value, uint64_t normally)
{
	if (value != normally)
		(void) fprintf(out, "%s=%llu\n", key, (unsigned long long) value);
}

/* A key that is a list has a line for each. */
static void print_lines(FILE *out, const char *key, const char *lines)
{
	for (const char *at = lines; at && *at; at += strspn(at, "\n")) {
		size_t len = strcspn(at, "\n");

		(void) fprintf(out, "%s=%.*s\n", key, (int) len, at);
		at += len;
	}
}

static void print_bitmaps(FILE *out, const struct export_settings *s)
{
	if (s->bitmaps && s->bitmaps[0])
		(void) fprintf(out, "Bitmap=%s\n", s->bitmaps);
	if (s->bitmap_store && s->bitmap_store[0])
		(void) fprintf(out, "BitmapStore=%s\n", s->bitmap_store);
	print_number(out, "BitmapGranularity", s->bitmap_granularity, defaults.bitmap_granularity);
	print_number(out, "BitmapRegion", s->bitmap_region, defaults.bitmap_region);
	print_number(out, "BitmapArmLimit", s->bitmap_arm_limit, defaults.bitmap_arm_limit);
	print_number(out, "BitmapCold", s->bitmap_cold, defaults.bitmap_cold);
	if (s->on_bitmap_error != defaults.on_bitmap_error)
		(void) fprintf(out, "OnBitmapError=%s\n", on_bitmap_error_word(s->on_bitmap_error));
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
	print_number(out, "Memory", s->memory, defaults.memory);
	print_number(out, "MaxConnections", s->max_connections, defaults.max_connections);
	print_number(out, "Threads", s->threads, defaults.threads);
	if (s->engine != defaults.engine)
		(void) fprintf(out, "Engine=%s\n", engine_names[s->engine]);
	if (s->allow && s->allow[0])
		(void) fprintf(out, "Allow=%s\n", s->allow);
	if (s->tls != defaults.tls)
		(void) fprintf(out, "TLS=%s\n", tls_policy_word(s->tls));
	print_lines(out, "Identity", s->identity);
	print_number(out, "MaxConnectionsPerSource", s->max_per_source, defaults.max_per_source);
	print_bool(out, "SingleWriter", s->single_writer, defaults.single_writer);
	print_number(out, "IdleTimeout", s->idle_timeout, defaults.idle_timeout);
	print_bool(out, "StartAtBoot", s->start_at_boot, defaults.start_at_boot);
	print_bool(out, "ResizeReconnect", s->resize_reconnect, defaults.resize_reconnect);
	print_bitmaps(out, s);
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

/* Down to the disk: only then is the name there for good. */
static int sync_folder(const char *dir)
{
	AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* Some file systems cannot sync a folder; there is nothing more to do then. */
	return fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? -errno : 0;
}

/* What a writer that was killed has left is removed first. */
static int replace(const char *dir, const char *hidden, const char *path,
                   const struct export_settings *s)
{
	AUTO_FD fd = -1;
	int r;

	(void) unlink(hidden);
	fd = open(hidden, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_settings(fd, s);
	if (r == 0 && rename(hidden, path) < 0)
		r = -errno;
	if (r < 0)
		(void) unlink(hidden);
	return r < 0 ? r : sync_folder(dir);
}

/* The hidden name keeps readers of the folder away until the file is whole. */
int export_settings_write(const char *dir, const struct export_settings *s, struct failure *why)
{
	AUTO_FREE char *path = NULL, *hidden = NULL;
	int r = check_settings(s, why);

	if (r < 0)
		return fail_while(why, "cannot write the settings of an export");
	if (asprintf(&path, "%s/%s" SUFFIX, dir, s->label) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot write the settings of an export");
	}
	if (asprintf(&hidden, "%s/.%s" EXPORT_FILE_UNFINISHED, dir, s->label) < 0) {
		hidden = NULL;
		return fail(why, ENOMEM, "cannot write %.300s", path);
	}
	r = replace(dir, hidden, path, s);
	return r < 0 ? fail(why, -r, "cannot write %.300s", path) : 0;
}
