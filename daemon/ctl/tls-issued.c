/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/tls-issued.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/attr.h"
#include "ctl/tls-psk.h"
#include "ctl/whole-file.h"

#define CERTIFICATE_ENDS "-----END CERTIFICATE-----\n"

static int path_of_issued(const struct tls_site *site, const char *name, char *ret,
                          struct failure *why)
{
	if (snprintf(ret, PATH_MAX, "%s/issued/%s.pem", site->ca, name) >= PATH_MAX)
		return fail_plain(why, ENAMETOOLONG, "the path is too long: %.300s/issued", site->ca);
	return 0;
}

static int path_in_client(const struct tls_site *site, const char *name, const char *file,
                          char *ret, struct failure *why)
{
	char folder[PATH_MAX];
	int r = tls_site_client_folder(site, name, folder, why);

	return r < 0 ? r : whole_file_path(folder, file, ret, why);
}

bool tls_issued_has(const struct tls_site *site, const char *name)
{
	char path[PATH_MAX];

	return path_of_issued(site, name, path, &(struct failure) { 0 }) == 0 &&
		access(path, F_OK) == 0;
}

/* The file's text, "" where there is no such file. */
static int read_text(const char *path, char **ret, struct failure *why)
{
	size_t len;

	if (access(path, F_OK) == 0)
		return whole_file_read(path, ret, &len, why);
	*ret = strdup("");
	return *ret ? 0 : fail(why, ENOMEM, "cannot read %.300s", path);
}

/* The certificates of the file `from` are in the file `to`, each once. */
static int join(const char *to, const char *from, struct failure *why)
{
	AUTO_FREE char *all = NULL;
	AUTO_FREE char *text = NULL;
	const char *one, *end;
	char *more;
	size_t len;
	int r = read_text(to, &all, why);

	r = r < 0 ? r : read_text(from, &text, why);
	if (r < 0)
		return r;
	len = strlen(all);
	more = realloc(all, len + strlen(text) + 1);
	if (!more)
		return fail(why, ENOMEM, "cannot change %.300s", to);
	all = more;
	for (one = text; (end = strstr(one, CERTIFICATE_ENDS)); one = end) {
		size_t size = (size_t) (end - one) + strlen(CERTIFICATE_ENDS);

		end += strlen(CERTIFICATE_ENDS);
		if (memmem(all, len, one, size))
			continue;
		memcpy(all + len, one, size);
		len += size;
	}
	return whole_file_write(to, all, len, 0600, why);
}

int tls_issued_note(const struct tls_site *site, const char *name, struct failure *why)
{
	char issued[PATH_MAX], cert[PATH_MAX];
	int r = path_of_issued(site, name, issued, why);

	r = r < 0 ? r : path_in_client(site, name, "client-cert.pem", cert, why);
	return r < 0 ? r : join(issued, cert, why);
}

static int make_list(const struct tls_site *site, const char *revoked, struct failure *why)
{
	const struct certtool_pair ca = tls_site_ca(site);
	char crl[PATH_MAX];
	int r = tls_site_find_ca(site, why);

	r = r < 0 ? r : whole_file_path(site->server, "ca-crl.pem", crl, why);
	return r < 0 ? r : certtool_revoke(&ca, revoked, (unsigned long long) time(NULL), crl, why);
}

/* 1: there were some, 0: there was none. */
static int revoke_certificates(const struct tls_site *site, const char *name, struct failure *why)
{
	char issued[PATH_MAX], cert[PATH_MAX], key[PATH_MAX], revoked[PATH_MAX];
	int r = path_of_issued(site, name, issued, why);

	r = r < 0 ? r : path_in_client(site, name, "client-cert.pem", cert, why);
	r = r < 0 ? r : path_in_client(site, name, "client-key.pem", key, why);
	r = r < 0 ? r : whole_file_path(site->ca, "revoked.pem", revoked, why);
	if (r < 0 || (access(issued, F_OK) < 0 && access(cert, F_OK) < 0))
		return r;
	r = join(revoked, issued, why);
	r = r < 0 ? r : join(revoked, cert, why);
	r = r < 0 ? r : make_list(site, revoked, why);
	if (r < 0)
		return r;
	(void) unlink(issued);          /* what is left of them is revoked again, at most */
	(void) unlink(cert);
	(void) unlink(key);
	return 1;
}

int tls_issued_revoke(const struct tls_site *site, const char *name, struct failure *why)
{
	char keys[PATH_MAX], own[PATH_MAX];
	int had_key, had_cert = revoke_certificates(site, name, why);
	int r = had_cert < 0 ? had_cert : whole_file_path(site->server, "psk.keys", keys, why);

	r = r < 0 ? r : path_in_client(site, name, "keys.psk", own, why);
	had_key = r < 0 ? r : tls_psk_remove(keys, name, why);
	if (had_key < 0)
		return had_key;
	if (!had_key && !had_cert)
		return fail_plain(why, ENOENT, "%s has neither a certificate by the CA in %.200s nor "
		                  "a key in %.200s", name, site->ca, keys);
	if (had_key)
		(void) unlink(own);
	return 0;
}
