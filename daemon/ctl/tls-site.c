/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/tls-site.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/paths.h"
#include "ctl/absolute-path.h"
#include "ctl/folder-lock.h"
#include "ctl/tls-issued.h"
#include "ctl/tls-psk.h"
#include "ctl/whole-file.h"

#define NAME_LIMIT 63u                  /* bytes; a common name has 64 */
#define HOST_LIMIT 253u
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

struct certtool_pair tls_site_ca(const struct tls_site *site)
{
	return (struct certtool_pair) { site->ca, "ca-cert.pem", "ca-key.pem" };
}

int tls_site_find(const char *server, const char *ca, struct tls_site *ret, struct failure *why)
{
	struct tls_site site = { .server = absolute_path(server ? server : TLS_DIR) };
	int r = site.server ? 0 : fail(why, errno, "cannot use the folder %.300s", server);

	if (r == 0 && ca) {
		site.ca = absolute_path(ca);
		r = site.ca ? 0 : fail(why, errno, "cannot use the folder %.300s", ca);
	} else if (r == 0 && asprintf(&site.ca, "%s-ca", site.server) < 0) {
		site.ca = NULL;
		r = fail(why, ENOMEM, "cannot use the folder %.300s", site.server);
	}
	if (r == 0 && strcmp(site.server, site.ca) == 0)
		r = fail_plain(why, EINVAL, "%.300s cannot be the folder of the CA as well: its key "
		               "must not lie where the server's are", site.ca);
	if (r < 0)
		tls_site_clear(&site);
	else
		*ret = site;
	return r;
}

void tls_site_clear(struct tls_site *site)
{
	free(site->server);
	free(site->ca);
	*site = (struct tls_site) { 0 };
}

int tls_name_check(const char *name, struct failure *why)
{
	size_t len = strlen(name);

	if (len == 0 || len > NAME_LIMIT || strspn(name, LETTERS "-_.@") != len || *name == '-' ||
	    *name == '.')
		return fail_plain(why, EINVAL, "\"%.80s\" is no name for a client: it is of letters, "
		                  "digits and -_.@, begins with neither - nor ., and has at most %u",
		                  name, NAME_LIMIT);
	return 0;
}

int tls_host_check(const char *host, struct failure *why)
{
	struct in6_addr address;
	const char *rest = strncmp(host, "*.", 2) == 0 ? host + 2 : host;
	size_t len = strlen(rest);

	if (inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1)
		return 0;
	if (len == 0 || len > HOST_LIMIT || strspn(rest, LETTERS "-.") != len || *rest == '-' ||
	    *rest == '.')
		return fail_plain(why, EINVAL, "\"%.80s\" is neither a host's name nor an address",
		                  host);
	return 0;
}

/* --- what is there ------------------------------------------------------------ */

static bool has(const char *folder, const char *name)
{
	char path[PATH_MAX];

	return whole_file_path(folder, name, path, &(struct failure) { 0 }) == 0 &&
		access(path, F_OK) == 0;
}

bool tls_site_has_ca(const struct tls_site *site)
{
	return has(site->ca, "ca-key.pem") && has(site->ca, "ca-cert.pem");
}

int tls_site_find_ca(const struct tls_site *site, struct failure *why)
{
	if (!tls_site_has_ca(site))
		return fail_plain(why, ENOENT, "the CA's key and certificate are not in %.200s: --ca "
		                  "tells the folder of ca-key.pem", site->ca);
	return 0;
}

int tls_site_no_other_ca(const struct tls_site *site, struct failure *why)
{
	const char *folder = has(site->ca, "ca-cert.pem") ? site->ca :
		has(site->server, "ca-cert.pem") ? site->server : NULL;

	if (!folder || has(site->ca, "ca-key.pem"))
		return 0;
	return fail_plain(why, EEXIST, "there is a CA, %.150s/ca-cert.pem, but its key is not in "
	                  "%.150s: --ca tells where it is; for a new CA remove the old one's "
	                  "certificate", folder, site->ca);
}

int tls_site_no_server(const struct tls_site *site, struct failure *why)
{
	static const char *const names[] = { "server-cert.pem", "server-key.pem" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (has(site->server, names[i]))
			return fail_plain(why, EEXIST, "%.300s/%s is there; --replace makes a new one",
			                  site->server, names[i]);
	return 0;
}

int tls_site_client_folder(const struct tls_site *site, const char *name, char ret[PATH_MAX],
                           struct failure *why)
{
	if (snprintf(ret, PATH_MAX, "%s/clients/%s", site->ca, name) >= PATH_MAX)
		return fail_plain(why, ENAMETOOLONG, "the path is too long: %.300s/clients", site->ca);
	return 0;
}

int tls_site_no_client(const struct tls_site *site, const char *name, struct failure *why)
{
	char folder[PATH_MAX];
	int r = tls_site_client_folder(site, name, folder, why);

	if (r == 0 && (has(folder, "client-cert.pem") || has(folder, "client-key.pem") ||
	               tls_issued_has(site, name)))
		return fail_plain(why, EEXIST, "the client %s has a certificate: %.300s; --replace "
		                  "makes another one", name, folder);
	return r;
}

int tls_site_no_key(const struct tls_site *site, const char *name, struct failure *why)
{
	char path[PATH_MAX];
	int r = whole_file_path(site->server, "psk.keys", path, why);

	if (r == 0 && tls_psk_has(path, name))
		return fail_plain(why, EEXIST, "%s has a key in %.300s; --replace makes another one",
		                  name, path);
	return r;
}

/* --- what is made ------------------------------------------------------------- */

static int make_folder(const char *path, mode_t mode, struct failure *why)
{
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return fail(why, errno, "cannot make the folder %.300s", path);
	return 0;
}

/* "nbd-export CA at storage1"; two of them differ by the key, which GnuTLS looks at too. */
static void name_ca(char *ret, size_t size)
{
	char host[48] = "";

	if (gethostname(host, sizeof host - 1) < 0 || strspn(host, LETTERS "-.") != strlen(host))
		*host = '\0';
	(void) snprintf(ret, size, "nbd-export CA%s%.40s", *host ? " at " : "", host);
}

int tls_site_lock(const struct tls_site *site, int *ret_fd, struct failure *why)
{
	char clients[PATH_MAX], issued[PATH_MAX];
	int r = whole_file_path(site->ca, "clients", clients, why);

	r = r < 0 ? r : whole_file_path(site->ca, "issued", issued, why);
	r = r < 0 ? r : make_folder(site->server, 0700, why);
	r = r < 0 ? r : make_folder(site->ca, 0700, why);
	r = r < 0 ? r : make_folder(clients, 0700, why);
	r = r < 0 ? r : make_folder(issued, 0700, why);
	return r < 0 ? r : folder_lock_other(site->ca, ret_fd, why);
}

int tls_site_make_ca(const struct tls_site *site, struct failure *why)
{
	const struct certtool_pair ca = tls_site_ca(site);
	char name[64];

	name_ca(name, sizeof name);
	return certtool_make_ca(&ca, name, why);
}

static int put_ca_certificate(const struct tls_site *site, const char *folder, struct failure *why)
{
	AUTO_FREE char *text = NULL;
	char from[PATH_MAX], to[PATH_MAX];
	size_t len = 0;
	int r = whole_file_path(site->ca, "ca-cert.pem", from, why);

	r = r < 0 ? r : whole_file_path(folder, "ca-cert.pem", to, why);
	r = r < 0 ? r : whole_file_read(from, &text, &len, why);
	return r < 0 ? r : whole_file_write(to, text, len, 0644, why);
}

int tls_site_make_server(const struct tls_site *site, const char *const *hosts, size_t n_hosts,
                         unsigned days, struct failure *why)
{
	const struct certtool_pair ca = tls_site_ca(site);
	const struct certtool_pair server = { site->server, "server-cert.pem", "server-key.pem" };
	const struct certtool_subject subject = { hosts[0], hosts, n_hosts, days };
	int r = certtool_issue(&ca, &subject, &server, why);

	return r < 0 ? r : put_ca_certificate(site, site->server, why);
}

int tls_site_make_client(const struct tls_site *site, const char *name, unsigned days,
                         struct failure *why)
{
	char folder[PATH_MAX];
	const struct certtool_pair ca = tls_site_ca(site);
	const struct certtool_pair client = { folder, "client-cert.pem", "client-key.pem" };
	const struct certtool_subject subject = { .name = name, .days = days };
	int r = tls_site_client_folder(site, name, folder, why);

	r = r < 0 ? r : make_folder(folder, 0700, why);
	r = r < 0 ? r : certtool_issue(&ca, &subject, &client, why);
	r = r < 0 ? r : tls_issued_note(site, name, why);
	return r < 0 ? r : put_ca_certificate(site, folder, why);
}

int tls_site_make_key(const struct tls_site *site, const char *name, struct failure *why)
{
	char keys[PATH_MAX], folder[PATH_MAX], own[PATH_MAX];
	int r = whole_file_path(site->server, "psk.keys", keys, why);

	r = r < 0 ? r : tls_site_client_folder(site, name, folder, why);
	r = r < 0 ? r : whole_file_path(folder, "keys.psk", own, why);
	r = r < 0 ? r : make_folder(folder, 0700, why);
	return r < 0 ? r : tls_psk_make(keys, own, name, why);
}
