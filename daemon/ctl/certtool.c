/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/certtool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/attr.h"
#include "ctl/run-program.h"
#include "ctl/whole-file.h"

#define CA_DAYS 3650u
#define CLOCK_SKEW 3600                 /* seconds; clocks of clients may be slow */
#define SECONDS_PER_DAY 86400
#define NAME_MAX_IN_SUBJECT 64u         /* X.509's limit */
#define TEXT_SIZE 4096u
#define WORDS_MAX 16u

static const char missing[] =
	"certtool is not installed, or not in $PATH: the package gnutls-bin has it";

/* certtool with these words, NULL behind the last. */
static int run(const char *const *words, struct failure *why)
{
	const char *argv[WORDS_MAX + 2] = { "certtool" };
	char text[TEXT_SIZE];
	int status;

	for (size_t i = 0; words[i]; i++)
		argv[i + 1] = words[i];
	status = run_program(argv, NULL, text, sizeof text, why);
	if (status == RUN_CANNOT)
		return fail_plain(why, ENOENT, "%s", missing);
	if (status > 0)
		return fail_plain(why, EIO, "certtool %s: %.300s", words[0], run_last_line(text));
	return status;
}

int certtool_find(struct failure *why)
{
	return run((const char *[]) { "--version", NULL }, why);
}

/* --- templates: what certtool is told about a certificate -------------------- */

static void put_date(FILE *out, const char *which, time_t at)
{
	char text[40] = "";
	struct tm tm;

	if (gmtime_r(&at, &tm))
		(void) strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
	(void) fprintf(out, "%s = \"%s\"\n", which, text);
}

static void put_dates(FILE *out, unsigned days)
{
	time_t now = time(NULL);

	put_date(out, "activation_date", now - CLOCK_SKEW);
	put_date(out, "expiration_date", now + (time_t) days * SECONDS_PER_DAY);
}

static void put_host(FILE *out, const char *host)
{
	struct in6_addr address;
	bool is_address = inet_pton(AF_INET, host, &address) == 1 ||
		inet_pton(AF_INET6, host, &address) == 1;

	(void) fprintf(out, "%s = \"%s\"\n", is_address ? "ip_address" : "dns_name", host);
}

static void put_subject(FILE *out, const void *of)
{
	const struct certtool_subject *s = of;

	(void) fprintf(out, "cn = \"%s\"\nsigning_key\n%s\n",
	               strlen(s->name) <= NAME_MAX_IN_SUBJECT ? s->name : "server",
	               s->n_hosts ? "tls_www_server" : "tls_www_client");
	for (size_t i = 0; i < s->n_hosts; i++)
		put_host(out, s->hosts[i]);
	put_dates(out, s->days);
}

static void put_ca(FILE *out, const void *name)
{
	(void) fprintf(out, "cn = \"%s\"\nca\npath_len = 0\ncert_signing_key\ncrl_signing_key\n",
	               (const char *) name);
	put_dates(out, CA_DAYS);
}

static void put_crl(FILE *out, const void *number)
{
	(void) fprintf(out, "crl_next_update = %u\ncrl_number = %llu\n", CA_DAYS,
	               *(const unsigned long long *) number);
}

/* A file in memory, which certtool reads by its name. */
static int make_template(void (*put)(FILE *out, const void *what), const void *what, int *ret,
                         struct failure *why)
{
	AUTO_FD fd = memfd_create("template", 0);
	FILE *out = fd < 0 ? NULL : fdopen(dup(fd), "w");

	if (!out)
		return fail(why, errno, "cannot make a template for certtool");
	put(out, what);
	if (fclose(out) != 0)
		return fail(why, errno, "cannot make a template for certtool");
	*ret = take_fd(&fd);
	return 0;
}

/* --- files ------------------------------------------------------------------- */

static int make_key(const char *path, struct failure *why)
{
	const char *words[] = { "--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1",
	                        "--no-text", "--outfile", path, NULL };

	return run(words, why);
}

/* `what` is --generate-certificate or the like; words that are NULL are left out. */
static int make_signed(const char *what, const char *key, const struct certtool_pair *ca,
                       const char *listed, int template, const char *path, struct failure *why)
{
	char ca_cert[PATH_MAX], ca_key[PATH_MAX], template_path[32];
	const char *words[WORDS_MAX] = { what, "--no-text", "--outfile", path, "--template",
	                                 template_path };
	size_t n = 6;
	int r = ca ? whole_file_path(ca->folder, ca->cert, ca_cert, why) : 0;

	(void) snprintf(template_path, sizeof template_path, "/proc/self/fd/%d", template);
	if (r == 0 && ca)
		r = whole_file_path(ca->folder, ca->key, ca_key, why);
	if (r < 0)
		return r;
	if (ca) {
		words[n++] = "--load-ca-certificate";
		words[n++] = ca_cert;
		words[n++] = "--load-ca-privkey";
		words[n++] = ca_key;
	}
	if (key) {
		words[n++] = "--load-privkey";
		words[n++] = key;
	}
	if (listed) {
		words[n++] = "--load-certificate";
		words[n++] = listed;
	}
	return run(words, why);
}

int certtool_make_ca(const struct certtool_pair *ca, const char *name, struct failure *why)
{
	char key[PATH_MAX], cert[PATH_MAX], unfinished[PATH_MAX];
	AUTO_FD template = -1;
	int r = whole_file_path(ca->folder, ca->key, key, why);

	if (r == 0)
		r = whole_file_path(ca->folder, ca->cert, cert, why);
	if (r == 0 && access(key, F_OK) < 0) {
		r = whole_file_begin(key, unfinished, why);
		r = r < 0 ? r : make_key(unfinished, why);
		r = r < 0 ? r : whole_file_end(unfinished, key, 0600, why);
	}
	if (r < 0 || access(cert, F_OK) == 0)
		return r;
	r = make_template(put_ca, name, &template, why);
	r = r < 0 ? r : whole_file_begin(cert, unfinished, why);
	r = r < 0 ? r : make_signed("--generate-self-signed", key, NULL, NULL, template,
	                            unfinished, why);
	return r < 0 ? r : whole_file_end(unfinished, cert, 0644, why);
}

int certtool_issue(const struct certtool_pair *ca, const struct certtool_subject *subject,
                   const struct certtool_pair *ret, struct failure *why)
{
	char key[PATH_MAX], cert[PATH_MAX], new_key[PATH_MAX], new_cert[PATH_MAX];
	AUTO_FD template = -1;
	int r = whole_file_path(ret->folder, ret->key, key, why);

	r = r < 0 ? r : whole_file_path(ret->folder, ret->cert, cert, why);
	r = r < 0 ? r : whole_file_begin(key, new_key, why);
	r = r < 0 ? r : whole_file_begin(cert, new_cert, why);
	r = r < 0 ? r : make_template(put_subject, subject, &template, why);
	r = r < 0 ? r : make_key(new_key, why);
	r = r < 0 ? r : make_signed("--generate-certificate", new_key, ca, NULL, template, new_cert,
	                            why);
	r = r < 0 ? r : whole_file_end(new_key, key, 0600, why);
	return r < 0 ? r : whole_file_end(new_cert, cert, 0644, why);
}

int certtool_revoke(const struct certtool_pair *ca, const char *revoked, unsigned long long number,
                    const char *crl, struct failure *why)
{
	char unfinished[PATH_MAX];
	AUTO_FD template = -1;
	int r = whole_file_begin(crl, unfinished, why);

	r = r < 0 ? r : make_template(put_crl, &number, &template, why);
	r = r < 0 ? r : make_signed("--generate-crl", NULL, ca, revoked, template, unfinished, why);
	return r < 0 ? r : whole_file_end(unfinished, crl, 0644, why);
}
