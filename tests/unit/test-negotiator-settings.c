/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>

#include "base/negotiator-settings.h"
#include "scratch.h"

#define SECTION "[Negotiator]\n"

static int read_text(struct scratch *s, const char *text, struct negotiator_settings *ret,
                     struct failure *why)
{
	return negotiator_settings_read(scratch_write(s, "negotiator.conf", text, strlen(text)),
	                                ret, why);
}

static void check_defaults(const struct negotiator_settings *s)
{
	CHECK_STR("rules", s->allow, "");
	CHECK_STR("identities", s->identity, "");
	CHECK_EQ("TLS", s->tls, TLS_POLICY_OFF);
	CHECK_EQ("certificates", s->client_certificate, CLIENT_CERTIFICATE_UNSET);
	CHECK_EQ("", s->max_clients, 10000);
	CHECK_EQ("", s->max_clients_per_source, 0);
	CHECK_EQ("", s->max_handshakes, 1024);
	CHECK_EQ("", s->max_handshakes_per_source, 256);
	CHECK_EQ("", s->handshake_timeout, 10);
	CHECK_EQ("", s->start_timeout, 5);
}

TEST(defaults_hold_without_a_file_and_in_an_empty_one)
{
	struct scratch s = scratch_start();
	struct negotiator_settings got = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", negotiator_settings_default(&got, &why), 0);
	check_defaults(&got);
	negotiator_settings_clear(&got);
	CHECK_EQ("", read_text(&s, "", &got, &why), 0);
	check_defaults(&got);
	negotiator_settings_clear(&got);
	CHECK_EQ("", negotiator_settings_read("/nonexistent", &got, &why), -ENOENT);
	scratch_end(&s);
}

TEST(every_key_is_read)
{
	struct scratch s = scratch_start();
	struct negotiator_settings got = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", read_text(&s, SECTION "Allow=any:read\nMaxClients=1\nMaxClientsPerSource=2\n"
	                       "MaxHandshakes=3\nMaxHandshakesPerSource=4\nHandshakeTimeout=5\n"
	                       "StartTimeout=6\nTLS=allow\nClientCertificate=optional\n"
	                       "Identity=read any\nIdentity=write ip:192.0.2.0/24\n", &got, &why), 0);
	CHECK_STR("why", why.text, "");
	CHECK_STR("rules", got.allow, "any:read");
	CHECK_STR("identities", got.identity, "read any\nwrite ip:192.0.2.0/24");
	CHECK_EQ("TLS", got.tls, TLS_POLICY_ALLOW);
	CHECK_EQ("certificates", got.client_certificate, CLIENT_CERTIFICATE_OPTIONAL);
	CHECK_EQ("", got.max_clients, 1);
	CHECK_EQ("", got.max_clients_per_source, 2);
	CHECK_EQ("", got.max_handshakes, 3);
	CHECK_EQ("", got.max_handshakes_per_source, 4);
	CHECK_EQ("", got.handshake_timeout, 5);
	CHECK_EQ("", got.start_timeout, 6);
	negotiator_settings_clear(&got);
	scratch_end(&s);
}

static const struct {
	const char *text;
	const char *want;       /* behind the path */
} bad[] = {
	{ "[Export]\n", ":1: [Export]: not a section of this file" },
	{ SECTION "Port=10809\n", ":2: Port=: not a key of this section" },
	{ SECTION "Allow=10.0.0.1/8\n", ":2: Allow=10.0.0.1/8: 10.0.0.1/8: the address goes on "
	  "behind /8; write 10.0.0.0/8, or leave /8 out for one address" },
	{ SECTION "MaxClients=0\n", ":2: MaxClients=0: not between 1 and 1000000" },
	{ SECTION "MaxHandshakes=0\n", ":2: MaxHandshakes=0: not between 1 and 65535" },
	{ SECTION "MaxHandshakesPerSource=65536\n",
	  ":2: MaxHandshakesPerSource=65536: not between 1 and 65535" },
	{ SECTION "HandshakeTimeout=0\n", ":2: HandshakeTimeout=0: not between 1 and 3600" },
	{ SECTION "StartTimeout=3601\n", ":2: StartTimeout=3601: not between 1 and 3600" },
	{ SECTION "StartTimeout=5s\n", ":2: StartTimeout=5s: not a number" },
};

TEST(a_bad_file_is_named_and_leaves_the_output_alone)
{
	struct scratch s = scratch_start();

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct negotiator_settings got = { .max_clients = 4711 };
		struct failure why = { 0 };
		char want[4400];

		CHECK(read_text(&s, bad[i].text, &got, &why) < 0);
		(void) snprintf(want, sizeof want, "%s%s", scratch_path(&s, "negotiator.conf"),
		                bad[i].want);
		CHECK_STR("", why.text, want);
		CHECK_EQ("untouched", got.max_clients, 4711);
	}
	scratch_end(&s);
}
