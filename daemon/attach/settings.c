/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keys of an attach.d file, as rows. */
#include "attach/settings.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "attach/attach.h"
#include "base/attr.h"
#include "base/settings.h"

static int parse_uri(const char *value, void *into, struct failure *why)
{
	struct nbd_uri *uri = malloc(sizeof *uri);
	int r = uri ? nbd_uri_parse(value, uri, why) : fail(why, ENOMEM, "cannot read a URI");

	free(uri);
	return r < 0 ? r : setting_string(value, into, why);
}

static int parse_device(const char *value, void *into, struct failure *why)
{
	int index;
	int r = nbd_index_of(value, &index, why);

	return r < 0 ? r : setting_string(value, into, why);
}

static int parse_connections(const char *value, void *into, struct failure *why)
{
	uint32_t n;
	int r = setting_u32(value, &n, why);

	if (r == 0 && (n < 1 || n > NBD_MAX_SOCKETS))
		return fail_plain(why, ERANGE, "not between 1 and %u", NBD_MAX_SOCKETS);
	if (r == 0)
		*(uint32_t *) into = n;
	return r;
}

#define ROW(key, parse, member) \
	{ "Attach", key, parse, offsetof(struct attach_settings, member) }

static const struct setting rows[] = {
	ROW("URI", parse_uri, uri),
	ROW("Device", parse_device, device),
	ROW("Connections", parse_connections, connections),
	ROW("Timeout", setting_u32, timeout),
	ROW("DeadConnectionTimeout", setting_u32, dead_timeout),
	ROW("ReadOnly", setting_bool, read_only),
	ROW("LoadModule", setting_bool, load_module),
};

void attach_settings_clear(struct attach_settings *s)
{
	free(s->uri);
	free(s->device);
	*s = (struct attach_settings) { 0 };
}

int attach_settings_read(const char *path, struct attach_settings *ret, struct failure *why)
{
	struct attach_settings s = {
		.connections = 1,
		.timeout = ATTACH_TIMEOUT,
		.dead_timeout = ATTACH_DEAD_TIMEOUT,
		.load_module = true,
	};
	int r = settings_read(path, rows, ARRAY_LEN(rows), &s, why);

	if (r == 0 && !s.uri)
		r = fail_plain(why, EINVAL, "%.300s: URI= is missing", path);
	if (r < 0) {
		attach_settings_clear(&s);
		return r;
	}
	*ret = s;
	return 0;
}
