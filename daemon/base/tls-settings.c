/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/tls-settings.h"

#include <errno.h>
#include <string.h>

#include "base/attr.h"

static const char *const policies[] = {
	[TLS_POLICY_UNSET] = "",
	[TLS_POLICY_OFF] = "off",
	[TLS_POLICY_ALLOW] = "allow",
	[TLS_POLICY_REQUIRE] = "require",
};
_Static_assert(ARRAY_LEN(policies) == N_TLS_POLICIES, "every policy has its word");

static const char *const certificates[] = {
	[CLIENT_CERTIFICATE_UNSET] = "",
	[CLIENT_CERTIFICATE_NONE] = "none",
	[CLIENT_CERTIFICATE_OPTIONAL] = "optional",
	[CLIENT_CERTIFICATE_REQUIRED] = "required",
};
_Static_assert(ARRAY_LEN(certificates) == N_CLIENT_CERTIFICATES, "every choice has its word");

const char *tls_policy_word(enum tls_policy policy)
{
	return policies[policy];
}

/* The place of the word, or 0, which nobody can write. */
static size_t find(const char *const *words, size_t n, const char *value)
{
	for (size_t i = 1; i < n; i++)
		if (strcmp(words[i], value) == 0)
			return i;
	return 0;
}

int setting_tls_policy(const char *value, void *policy, struct failure *why)
{
	size_t found = find(policies, ARRAY_LEN(policies), value);

	if (!found)
		return fail_plain(why, EINVAL, "write off, allow or require");
	*(enum tls_policy *) policy = (enum tls_policy) found;
	return 0;
}

int setting_client_certificate(const char *value, void *certificate, struct failure *why)
{
	size_t found = find(certificates, ARRAY_LEN(certificates), value);

	if (!found)
		return fail_plain(why, EINVAL, "write none, optional or required");
	*(enum client_certificate *) certificate = (enum client_certificate) found;
	return 0;
}
