/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/settings-words.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/text.h"

#define VALUE_SHOWN 80u

enum kind { TEXT, LINES, BOOLEAN, NUMBER, SIZE, ENGINE, TLS, ON_BITMAP_ERROR };

#define ROW(key, kind, member, restart) \
	{ key, kind, offsetof(struct export_settings, member), restart }

static const struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	bool restart;                   /* a running export keeps what it has */
} keys[] = {
	ROW("Device", TEXT, device, true),
	ROW("Name", TEXT, name, false),
	ROW("Description", TEXT, description, false),
	ROW("ReadOnly", BOOLEAN, read_only, true),
	ROW("Direct", BOOLEAN, direct, true),
	ROW("Shared", BOOLEAN, shared, true),
	ROW("Default", BOOLEAN, is_default, false),
	ROW("Memory", SIZE, memory, true),
	ROW("MaxConnections", NUMBER, max_connections, false),
	ROW("Threads", NUMBER, threads, true),
	ROW("Engine", ENGINE, engine, true),
	ROW("Allow", TEXT, allow, false),
	ROW("TLS", TLS, tls, false),
	ROW("Identity", LINES, identity, false),
	ROW("MaxConnectionsPerSource", NUMBER, max_per_source, false),
	ROW("SingleWriter", BOOLEAN, single_writer, false),
	ROW("IdleTimeout", NUMBER, idle_timeout, false),
	ROW("StartAtBoot", BOOLEAN, start_at_boot, false),
	ROW("ResizeReconnect", BOOLEAN, resize_reconnect, false),
	ROW("Bitmap", TEXT, bitmaps, true),
	ROW("BitmapStore", TEXT, bitmap_store, true),
	ROW("BitmapGranularity", SIZE, bitmap_granularity, true),
	ROW("BitmapRegion", SIZE, bitmap_region, true),
	ROW("BitmapArmLimit", NUMBER, bitmap_arm_limit, true),
	ROW("BitmapCold", NUMBER, bitmap_cold, true),
	ROW("OnBitmapError", ON_BITMAP_ERROR, on_bitmap_error, true),
};

const char *engine_word(enum export_engine engine)
{
	switch (engine) {
	case EXPORT_ENGINE_URING:
		return "io_uring";
	case EXPORT_ENGINE_THREADS:
		return "threads";
	case EXPORT_ENGINE_AUTO:
		break;
	}
	return "auto";
}

static const void *member(const struct export_settings *s, const struct key *key)
{
	return (const char *) s + key->offset;
}

static const char *text_of(const struct export_settings *s, const struct key *key)
{
	const char *text = *(char *const *) member(s, key);

	return text ? text : "";
}

static bool same(const struct export_settings *a, const struct export_settings *b,
                 const struct key *key)
{
	const void *of_a = member(a, key);
	const void *of_b = member(b, key);

	switch (key->kind) {
	case TEXT:
	case LINES:
		return strcmp(text_of(a, key), text_of(b, key)) == 0;
	case BOOLEAN:
		return *(const bool *) of_a == *(const bool *) of_b;
	case NUMBER:
		return *(const uint32_t *) of_a == *(const uint32_t *) of_b;
	case SIZE:
		return *(const uint64_t *) of_a == *(const uint64_t *) of_b;
	case ENGINE:
		return *(const enum export_engine *) of_a == *(const enum export_engine *) of_b;
	case TLS:
		return *(const enum tls_policy *) of_a == *(const enum tls_policy *) of_b;
	case ON_BITMAP_ERROR:
		break;
	}
	return *(const enum export_on_bitmap_error *) of_a ==
	       *(const enum export_on_bitmap_error *) of_b;
}

/* "one, another" */
static void lines_word(const char *lines, char *ret, size_t size)
{
	char text[VALUE_SHOWN];
	size_t len = 0;

	for (; *lines && len < sizeof text - 2; lines++) {
		text[len++] = *lines == '\n' ? ',' : *lines;
		if (*lines == '\n')
			text[len++] = ' ';
	}
	text[len] = '\0';
	printable(span_of(text), VALUE_SHOWN, ret, size);
}

static void word(const struct export_settings *s, const struct key *key, char *ret, size_t size)
{
	const void *value = member(s, key);

	switch (key->kind) {
	case TEXT:
		printable(span_of(text_of(s, key)), VALUE_SHOWN, ret, size);
		break;
	case LINES:
		lines_word(text_of(s, key), ret, size);
		break;
	case TLS:
		(void) snprintf(ret, size, "%s", tls_policy_word(*(const enum tls_policy *) value));
		break;
	case BOOLEAN:
		(void) snprintf(ret, size, "%s", *(const bool *) value ? "yes" : "no");
		break;
	case NUMBER:
		(void) snprintf(ret, size, "%" PRIu32, *(const uint32_t *) value);
		break;
	case SIZE:
		format_size(*(const uint64_t *) value, ret, size);
		break;
	case ENGINE:
		(void) snprintf(ret, size, "%s", engine_word(*(const enum export_engine *) value));
		break;
	case ON_BITMAP_ERROR:
		(void) snprintf(ret, size, "%s",
		                on_bitmap_error_word(*(const enum export_on_bitmap_error *) value));
		break;
	}
}

static void add(char *text, size_t size, const char *separator, const char *more)
{
	size_t len = strlen(text);

	(void) snprintf(text + len, size - len, "%s%s", len ? separator : "", more);
}

bool settings_differ(const struct export_settings *now, const struct export_settings *before,
                     char *ret, size_t size, char *ret_restart, size_t restart_size)
{
	bool differ = false;

	*ret = '\0';
	if (ret_restart)
		*ret_restart = '\0';
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		char new[VALUE_SHOWN + 4], old[VALUE_SHOWN + 4];
		char words[2 * VALUE_SHOWN + 60];

		if (same(now, before, &keys[i]))
			continue;
		differ = true;
		word(now, &keys[i], new, sizeof new);
		word(before, &keys[i], old, sizeof old);
		(void) snprintf(words, sizeof words, "%s=%s, not %s", keys[i].name,
		                *new ? new : "empty", *old ? old : "empty");
		add(ret, size, "; ", words);
		if (ret_restart && keys[i].restart) {
			(void) snprintf(words, sizeof words, "%s=", keys[i].name);
			add(ret_restart, restart_size, ", ", words);
		}
	}
	return differ;
}
