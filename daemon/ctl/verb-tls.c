/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl tls: the table of its verbs, and those about one client.
 */
#include "ctl/verb-tls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/paths.h"
#include "base/settings.h"
#include "ctl/tls-issued.h"
#include "ctl/verb-group.h"
#include "ctl/verbs.h"

#define DAYS_MAX 36500u

/* --- options ------------------------------------------------------------------ */

static int add_word(struct tls_words *words, const char *value, struct failure *why)
{
	for (size_t i = 0; i < words->n; i++)
		if (strcmp(words->word[i], value) == 0)
			return 0;
	if (words->n == TLS_WORDS_MAX - 1)
		return fail_plain(why, EINVAL, "there are too many");
	words->word[words->n++] = value;
	return 0;
}

int tls_option_host(const char *value, void *words, struct failure *why)
{
	int r = tls_host_check(value, why);

	return r < 0 ? r : add_word(words, value, why);
}

int tls_option_name(const char *value, void *words, struct failure *why)
{
	int r = tls_name_check(value, why);

	return r < 0 ? r : add_word(words, value, why);
}

int tls_option_days(const char *value, void *u32, struct failure *why)
{
	uint32_t days;
	int r = setting_u32(value, &days, why);

	if (r == 0 && (days == 0 || days > DAYS_MAX))
		r = fail_plain(why, ERANGE, "it is 1 to %u days", DAYS_MAX);
	if (r == 0)
		*(uint32_t *) u32 = days;
	return r;
}

/* --- what is told ------------------------------------------------------------- */

int tls_tell_client(const struct tls_site *site, const char *name, struct failure *why)
{
	char folder[PATH_MAX], path[PATH_MAX];
	int r = tls_site_client_folder(site, name, folder, why);
	bool has_cert, has_key;

	if (r < 0)
		return r;
	has_cert = tls_site_no_client(site, name, &(struct failure) { 0 }) == -EEXIST;
	(void) snprintf(path, sizeof path, "%.*s/keys.psk", (int) sizeof path - 16, folder);
	has_key = access(path, F_OK) == 0;
	(void) printf("The client %s: %s\n  %s%s%s\n", name, folder,
	              has_cert ? "ca-cert.pem, client-cert.pem, client-key.pem" : "",
	              has_cert && has_key ? ", " : "", has_key ? "keys.psk" : "");
	return 0;
}

void tls_tell_how(void)
{
	(void) printf("  Move a client's folder to its machine, over a way that nobody reads, and there:\n"
	              "    nbdinfo 'nbds://HOST/EXPORT?tls-certificates=FOLDER'\n"
	              "    qemu-img info --object tls-creds-x509,id=tls,endpoint=client,dir=FOLDER \\\n"
	              "      --image-opts driver=nbd,host=HOST,port=10809,export=EXPORT,tls-creds=tls\n"
	              "  with keys.psk:\n"
	              "    nbdinfo 'nbds://CLIENT@HOST/EXPORT?tls-psk-file=FOLDER/keys.psk'\n"
	              "    qemu-img info --object tls-creds-psk,id=tls,endpoint=client,dir=FOLDER,"
	              "username=CLIENT ...\n");
}

/* --- client ------------------------------------------------------------------- */

struct client_options {
	struct verb_options common;
	const char *ca;
	uint32_t days;
	bool psk, replace;
};

#define CA_ROW \
	{ 0, "ca", "FOLDER", option_text, offsetof(struct client_options, ca), \
	  "where the CA and the clients' files are (DIR-ca)\n" }

static const struct verb_option client_options[] = {
	{ 0, "psk", NULL, option_flag, offsetof(struct client_options, psk),
	  "a pre-shared key instead of a certificate\n" },
	{ 0, "days", "N", tls_option_days, offsetof(struct client_options, days),
	  "how long the certificate is good (365)\n" },
	CA_ROW,
	{ 0, "replace", NULL, option_flag, offsetof(struct client_options, replace),
	  "instead of what it has; an old certificate is good until it\n"
	  "ends or is revoked\n" },
};

static const struct command client_command = {
	.verb = "tls client",
	.arguments = "NAME [DIR]",
	.about =
"Make a certificate for another client, by the CA that `nbdctl tls init` made, or a key\n"
"in psk.keys of DIR (" TLS_DIR ").\n",
	.min_words = 1,
	.max_words = 2,
	.options = client_options,
	.n_options = ARRAY_LEN(client_options),
};

static int make_client(const struct client_options *o, const struct tls_site *site,
                       struct failure *why)
{
	const char *name = o->common.words[0];
	int r = o->psk ? 0 : tls_site_find_ca(site, why);

	r = r < 0 || o->psk ? r : certtool_find(why);
	if (r == 0 && !o->replace)
		r = o->psk ? tls_site_no_key(site, name, why) : tls_site_no_client(site, name, why);
	if (r < 0)
		return r;
	return o->psk ? tls_site_make_key(site, name, why)
	              : tls_site_make_client(site, name, o->days, why);
}

/* `act` on the site that the words tell. */
static int with_site(const struct client_options *o,
                     int (*act)(const struct client_options *o, const struct tls_site *site,
                                struct failure *why), struct failure *why)
{
	AUTO_FD lock = -1;
	struct tls_site site;
	int r = tls_name_check(o->common.words[0], why);

	r = r < 0 ? r : tls_site_find(o->common.n_words > 1 ? o->common.words[1] : NULL, o->ca, &site,
	                              why);
	if (r < 0)
		return r;
	(void) umask(0077);
	r = access(site.ca, F_OK) == 0 ? tls_site_lock(&site, &lock, why)
	                               : fail(why, errno, "cannot use the folder of the CA %.200s "
	                                      "(nbdctl tls init makes one, --ca tells of another)",
	                                      site.ca);
	r = r < 0 ? r : act(o, &site, why);
	tls_site_clear(&site);
	return r;
}

static int add_client(const struct client_options *o, const struct tls_site *site,
                      struct failure *why)
{
	int r = make_client(o, site, why);

	r = r < 0 ? r : tls_tell_client(site, o->common.words[0], why);
	if (r < 0)
		return r;
	(void) printf("\nNext:\n");
	if (o->psk)
		(void) printf("  systemctl reload nbd-tls: it reads psk.keys again\n");
	tls_tell_how();
	return 0;
}

static int run_client(const void *options, struct failure *why)
{
	return with_site(options, add_client, why);
}

int tls_verb_client(int argc, char **argv)
{
	struct client_options o = { .days = TLS_DAYS };

	return command_run(&client_command, argc, argv, &o, run_client);
}

/* --- revoke ------------------------------------------------------------------- */

static const struct verb_option revoke_options[] = { CA_ROW };

static const struct command revoke_command = {
	.verb = "tls revoke",
	.arguments = "NAME [DIR]",
	.about =
"Let a client in no more: all certificates that it has got join ca-crl.pem of DIR\n"
"(" TLS_DIR "), its key goes from psk.keys, and its files go from the CA's folder.\n",
	.min_words = 1,
	.max_words = 2,
	.options = revoke_options,
	.n_options = ARRAY_LEN(revoke_options),
};

static int revoke_client(const struct client_options *o, const struct tls_site *site,
                         struct failure *why)
{
	int r = tls_issued_revoke(site, o->common.words[0], why);

	if (r == 0)
		(void) printf("revoked the client %s\n\nNext:\n"
		              "  systemctl reload nbd-tls: it reads the files again; who is connected stays "
		              "(nbdctl kick)\n", o->common.words[0]);
	return r;
}

static int run_revoke(const void *options, struct failure *why)
{
	return with_site(options, revoke_client, why);
}

int tls_verb_revoke(int argc, char **argv)
{
	struct client_options o = { .days = TLS_DAYS };

	return command_run(&revoke_command, argc, argv, &o, run_revoke);
}

/* --- the table ---------------------------------------------------------------- */

static const struct group_verb verbs[] = {
	{ "init", "make a CA, a server's certificate, clients' certificates", tls_verb_init },
	{ "check", "tell what is wrong with the files", tls_verb_check },
	{ "client", "make a certificate or a key for one more client", tls_verb_client },
	{ "revoke", "let a client in no more", tls_verb_revoke },
};

static const struct verb_group group = {
	.name = "tls",
	.about = "Keys and certificates of a lab or a small site, for nbd-tls.\n",
	.verbs = verbs,
	.n = ARRAY_LEN(verbs),
};

int verb_tls(int argc, char **argv)
{
	return verb_group_run(&group, argc, argv);
}
