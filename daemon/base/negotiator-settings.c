/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keys of negotiator.conf, as rows. */
#include "base/negotiator-settings.h"

#include <errno.h>
#include <string.h>

#include "base/access.h"
#include "base/identity.h"
#include "base/settings.h"

#define CLIENTS_MAX 1000000u
#define HANDSHAKES_MAX 65535u
#define SECONDS_MAX 3600u

static const struct negotiator_settings defaults = {
	.tls = TLS_POLICY_OFF,
	.max_clients = 10000,
	.max_handshakes = 1024,
	.max_handshakes_per_source = 256,
	.handshake_timeout = 10,
	.start_timeout = 5,
};

static int parse_within(const char *value, uint32_t least, uint32_t most, uint32_t *ret,
                        struct failure *why)
{
	int r = setting_u32(value, ret, why);

	if (r == 0 && (*ret < least || *ret > most))
		return fail_plain(why, ERANGE, "not between %u and %u", least, most);
	return r;
}

static int parse_clients(const char *value, void *u32, struct failure *why)
{
	return parse_within(value, 1, CLIENTS_MAX, u32, why);
}

static int parse_clients_per_source(const char *value, void *u32, struct failure *why)
{
	return parse_within(value, 0, CLIENTS_MAX, u32, why);
}

static int parse_handshakes(const char *value, void *u32, struct failure *why)
{
	return parse_within(value, 1, HANDSHAKES_MAX, u32, why);
}

static int parse_seconds(const char *value, void *u32, struct failure *why)
{
	return parse_within(value, 1, SECONDS_MAX, u32, why);
}

#define ROW(key, parse, member) \
	{ "Negotiator", key, parse, offsetof(struct negotiator_settings, member), false }
#define ROW_MANY(key, parse, member) \
	{ "Negotiator", key, parse, offsetof(struct negotiator_settings, member), true }

static const struct setting keys[] = {
	ROW("Allow", setting_access, allow),
	ROW("TLS", setting_tls_policy, tls),
	ROW("ClientCertificate", setting_client_certificate, client_certificate),
	ROW_MANY("Identity", setting_identity, identity),
	ROW("MaxClients", parse_clients, max_clients),
	ROW("MaxClientsPerSource", parse_clients_per_source, max_clients_per_source),
	ROW("MaxHandshakes", parse_handshakes, max_handshakes),
	ROW("MaxHandshakesPerSource", parse_handshakes, max_handshakes_per_source),
	ROW("HandshakeTimeout", parse_seconds, handshake_timeout),
	ROW("StartTimeout", parse_seconds, start_timeout),
};

void negotiator_settings_clear(struct negotiator_settings *s)
{
	free(s->allow);
	free(s->identity);
	*s = (struct negotiator_settings) { 0 };
}

/* Gives `s` away, with what was not said filled in. */
static int finish(struct negotiator_settings *s, struct negotiator_settings *ret,
                  struct failure *why)
{
	if (!s->allow)
		s->allow = strdup("");
	if (!s->identity)
		s->identity = strdup("");
	if (!s->allow || !s->identity)
		return fail(why, ENOMEM, "cannot keep the settings");
	*ret = *s;
	*s = (struct negotiator_settings) { 0 };
	return 0;
}

int negotiator_settings_default(struct negotiator_settings *ret, struct failure *why)
{
	struct negotiator_settings s = defaults;

	return finish(&s, ret, why);
}

int negotiator_settings_read(const char *path, struct negotiator_settings *ret,
                             struct failure *why)
{
	__attribute__((cleanup(negotiator_settings_clear))) struct negotiator_settings s = defaults;
	int r = settings_read(path, keys, ARRAY_LEN(keys), &s, why);

	return r < 0 ? r : finish(&s, ret, why);
}

int negotiator_settings_check(const char *path, struct failure *why)
{
	struct negotiator_settings s;
	int r = negotiator_settings_read(path, &s, why);

	if (r == 0)
		negotiator_settings_clear(&s);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}
