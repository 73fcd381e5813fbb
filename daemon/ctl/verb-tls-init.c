/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl tls init: a CA, a certificate for the server and some for clients.
 */
#include "ctl/verb-tls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/paths.h"

struct init_options {
	struct verb_options common;
	struct tls_words hosts, clients, keys;
	const char *ca;
	uint32_t days;
	bool replace;
};

static const struct verb_option options[] = {
	{ 0, "host", "NAME", tls_option_host, offsetof(struct init_options, hosts),
	  "a name or address by which clients reach this server; may be\n"
	  "given several times (its host name, localhost, 127.0.0.1, ::1)\n" },
	{ 0, "client", "NAME", tls_option_name, offsetof(struct init_options, clients),
	  "a client to make a certificate for; may be given several\n"
	  "times (with a new CA: one client, \"client\")\n" },
	{ 0, "psk", "NAME", tls_option_name, offsetof(struct init_options, keys),
	  "a client to make a pre-shared key for; the same\n" },
	{ 0, "days", "N", tls_option_days, offsetof(struct init_options, days),
	  "how long certificates are good (365; the CA's: ten years)\n" },
	{ 0, "ca", "FOLDER", option_text, offsetof(struct init_options, ca),
	  "where the CA and the clients' files are (DIR-ca)\n" },
	{ 0, "replace", NULL, option_flag, offsetof(struct init_options, replace),
	  "what is made replaces what is there; a CA that is there stays\n" },
};

static const struct command command = {
	.verb = "tls init",
	.arguments = "[DIR]",
	.about =
"Make keys and certificates for a lab or a small site: a CA, a certificate for this\n"
"server in DIR (" TLS_DIR "), and one for each client.  A CA that is there is\n"
"used: with --replace this renews the server's certificate.\n",
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

/* Without --host: as this machine is called, and from itself. */
static void find_hosts(struct tls_words *hosts, char *own, size_t size)
{
	static const char *const local[] = { "localhost", "127.0.0.1", "::1" };

	if (hosts->n)
		return;
	if (gethostname(own, size - 1) == 0 && tls_host_check(own, &(struct failure) { 0 }) == 0 &&
	    strcmp(own, local[0]) != 0)
		hosts->word[hosts->n++] = own;
	for (size_t i = 0; i < ARRAY_LEN(local); i++)
		hosts->word[hosts->n++] = local[i];
}

/* Before anything is made: nothing would be lost. */
static int check(const struct init_options *o, const struct tls_site *site, struct failure *why)
{
	int r = tls_site_no_other_ca(site, why);

	if (r < 0 || o->replace)
		return r;
	r = tls_site_no_server(site, why);
	for (size_t i = 0; r == 0 && i < o->clients.n; i++)
		r = tls_site_no_client(site, o->clients.word[i], why);
	for (size_t i = 0; r == 0 && i < o->keys.n; i++)
		r = tls_site_no_key(site, o->keys.word[i], why);
	return r;
}

static int make(const struct init_options *o, const struct tls_site *site, struct failure *why)
{
	int r = tls_site_make_ca(site, why);

	r = r < 0 ? r : tls_site_make_server(site, o->hosts.word, o->hosts.n, o->days, why);
	for (size_t i = 0; r == 0 && i < o->clients.n; i++)
		r = tls_site_make_client(site, o->clients.word[i], o->days, why);
	for (size_t i = 0; r == 0 && i < o->keys.n; i++)
		r = tls_site_make_key(site, o->keys.word[i], why);
	return r;
}

/* A client may have both, and is told of once. */
static int tell_clients(const struct init_options *o, const struct tls_site *site,
                        struct failure *why)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < o->clients.n; i++)
		r = tls_tell_client(site, o->clients.word[i], why);
	for (size_t i = 0; r == 0 && i < o->keys.n; i++) {
		bool told = false;

		for (size_t j = 0; j < o->clients.n; j++)
			told = told || strcmp(o->keys.word[i], o->clients.word[j]) == 0;
		if (!told)
			r = tls_tell_client(site, o->keys.word[i], why);
	}
	return r;
}

static int tell(const struct init_options *o, const struct tls_site *site, bool had_ca,
                struct failure *why)
{
	int r;

	(void) printf("The CA%s: %s\n"
	              "  ca-key.pem       who has it can make clients: keep this folder on a machine\n"
	              "                   that serves nobody, or offline\n",
	              had_ca ? ", which was there" : "", site->ca);
	(void) printf("The server, for");
	for (size_t i = 0; i < o->hosts.n; i++)
		(void) printf("%s %s", i ? "," : "", o->hosts.word[i]);
	(void) printf(", for %u days: %s\n"
	              "  server-cert.pem, server-key.pem, ca-cert.pem%s\n", o->days, site->server,
	              o->keys.n ? ", psk.keys" : "");
	r = tell_clients(o, site, why);
	if (r < 0)
		return r;
	(void) printf("\nNext:\n  nbdctl tls check %s\n", site->server);
	if (strcmp(site->server, TLS_DIR) == 0)
		(void) printf("  systemctl reload-or-restart nbd-tls     (TLS=require in negotiator.conf, or "
		              "in an\n"
		              "  export's file, lets nobody in without)\n");
	else
		(void) printf("  nbdctl serve --tls %s --tls-required ...\n", site->server);
	if (o->clients.n || o->keys.n)
		tls_tell_how();
	return 0;
}

static int init(const void *options_read, struct failure *why)
{
	struct init_options o = *(const struct init_options *) options_read;
	struct tls_site site;
	char own[256] = "";
	AUTO_FD lock = -1;
	bool had_ca;
	int r = tls_site_find(o.common.n_words ? o.common.words[0] : NULL, o.ca, &site, why);

	if (r < 0)
		return r;
	(void) umask(0077);
	had_ca = tls_site_has_ca(&site);
	find_hosts(&o.hosts, own, sizeof own);
	if (!had_ca && !o.clients.n && !o.keys.n)
		o.clients.word[o.clients.n++] = "client";
	r = check(&o, &site, why);
	r = r < 0 ? r : certtool_find(why);
	r = r < 0 ? r : tls_site_lock(&site, &lock, why);
	r = r < 0 ? r : check(&o, &site, why);
	r = r < 0 ? r : make(&o, &site, why);
	r = r < 0 ? r : tell(&o, &site, had_ca, why);
	tls_site_clear(&site);
	return r;
}

int tls_verb_init(int argc, char **argv)
{
	struct init_options o = { .days = TLS_DAYS };

	return command_run(&command, argc, argv, &o, init);
}
