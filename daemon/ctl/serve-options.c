/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/serve-options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/settings.h"
#include "base/text.h"
#include "ctl/client-sockets.h"

static int on_read_only(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->read_only = true;
	return 0;
}

static int on_shared(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->shared = true;
	return 0;
}

static int on_single_writer(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->single_writer = true;
	return 0;
}

static int on_insecure_listen(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->insecure_listen = true;
	return 0;
}

static int on_tls(struct serve_options *o, const char *value, struct failure *why)
{
	if (o->tls)
		return fail_plain(why, EINVAL, "it was already given as \"%s\"", o->tls);
	o->tls = value;
	return 0;
}

static int on_tls_required(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->tls_required = true;
	return 0;
}

static int on_debug(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->debug = true;
	return 0;
}

static int on_help(struct serve_options *o, const char *value, struct failure *why)
{
	(void) value;
	(void) why;
	o->help = true;
	return 0;
}

/* The arrays have room for every argument there is. */
static int on_listen(struct serve_options *o, const char *value, struct failure *why)
{
	const char *colon = strrchr(value, ':');

	if (!colon || colon == value || colon[1] == '\0')
		return fail_plain(why, EINVAL, "write ADDRESS:PORT, as in 127.0.0.1:10809, not "
		                  "\"%s\"", value);
	o->listen[o->n_listen++] = value;
	return 0;
}

static int on_unix(struct serve_options *o, const char *value, struct failure *why)
{
	if (*value == '\0')
		return fail_plain(why, EINVAL, "the socket's path is empty");
	o->unix_paths[o->n_unix++] = value;
	return 0;
}

static int on_config(struct serve_options *o, const char *value, struct failure *why)
{
	if (o->config)
		return fail_plain(why, EINVAL, "it was already given as \"%s\"", o->config);
	o->config = value;
	return 0;
}

static int on_description(struct serve_options *o, const char *value, struct failure *why)
{
	(void) why;
	o->description = value;
	return 0;
}

static int on_direct(struct serve_options *o, const char *value, struct failure *why)
{
	return setting_bool(value, &o->direct, why);
}

static int on_memory(struct serve_options *o, const char *value, struct failure *why)
{
	int r = setting_size(value, &o->memory, why);

	if (r < 0)
		return r;
	if (o->memory < EXPORT_MEMORY_MIN)
		return fail_plain(why, EINVAL, "%s is too little: one whole reply of 32 MiB and "
		                  "others beside it need %u MiB", value, EXPORT_MEMORY_MIN >> 20);
	return 0;
}

static int on_max_connections(struct serve_options *o, const char *value, struct failure *why)
{
	return export_connections_parse(value, &o->max_connections, why);
}

static int on_threads(struct serve_options *o, const char *value, struct failure *why)
{
	int r = setting_u32(value, &o->threads, why);

	if (r < 0)
		return r;
	if (o->threads < 1 || o->threads > EXPORT_THREADS_MAX)
		return fail_plain(why, EINVAL, "not between 1 and %u", EXPORT_THREADS_MAX);
	return 0;
}

static int on_engine(struct serve_options *o, const char *value, struct failure *why)
{
	return export_engine_parse(value, &o->engine, why);
}

static const struct serve_option {
	const char *name;
	const char *value;              /* what the value is called; NULL without one */
	bool of_exports;                /* in the files of --config it is a key */
	int (*set)(struct serve_options *o, const char *value, struct failure *why);
	const char *help;               /* lines end with \n */
} table[] = {
	{ "listen", "ADDRESS:PORT", false, on_listen,
	  "listen on TCP, e.g. 127.0.0.1:10809 or [::1]:10809; port 0\n"
	  "takes a free one; may be given several times\n" },
	{ "insecure-listen", NULL, false, on_insecure_listen,
	  "let --listen take addresses that other machines reach, without\n"
	  "Allow=: whoever reaches them may read, and write, every export\n" },
	{ "unix", "PATH", false, on_unix,
	  "listen on a unix socket at PATH; may be given several times.\n"
	  "Without --listen and --unix: a private socket of its own\n" },
	{ "tls", "DIR", false, on_tls,
	  "clients may use TLS; DIR has server-cert.pem, server-key.pem,\n"
	  "ca-cert.pem, ca-crl.pem, psk.keys, as far as they are wanted\n" },
	{ "tls-required", NULL, false, on_tls_required,
	  "clients have to; --listen may then take addresses that other\n"
	  "machines reach, for clients with a certificate or a key\n" },
	{ "config", "DIR", false, on_config,
	  "serve every LABEL.conf of DIR instead of PATHs; bad files\n"
	  "are named and skipped\n" },
	{ "read-only", NULL, true, on_read_only,
	  "clients cannot write, and the disk is opened for reading\n" },
	{ "shared", NULL, true, on_shared,
	  "with --read-only: also what is mounted or otherwise in use\n" },
	{ "description", "TEXT", true, on_description,
	  "what clients see beside the name when they list exports\n" },
	{ "direct", "yes|no", true, on_direct,
	  "no: go through the page cache (yes)\n" },
	{ "memory", "SIZE", true, on_memory,
	  "memory for requests in flight, for each export (64M a thread)\n" },
	{ "max-connections", "N", true, on_max_connections,
	  "clients at a time, for each export (256)\n" },
	{ "single-writer", NULL, true, on_single_writer,
	  "one client at a time that may write, for each export\n" },
	{ "threads", "N", true, on_threads,
	  "request loops, for each export (1)\n" },
	{ "engine", "NAME", true, on_engine,
	  "what the loops run on: io_uring, threads, or auto: io_uring if\n"
	  "there is one (auto)\n" },
	{ "debug", NULL, false, on_debug,
	  "log what happens in detail\n" },
	{ "help", NULL, false, on_help,
	  "show this text\n" },
};

void serve_options_print(void)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		const char *line = table[i].help;
		char left[40];

		(void) snprintf(left, sizeof left, "--%s%s%s", table[i].name,
		                table[i].value ? " " : "", table[i].value ? table[i].value : "");
		while (*line) {
			int len = (int) strcspn(line, "\n");

			(void) printf("  %-22s %.*s\n", left, len, line);
			line += len + 1;
			left[0] = '\0';
		}
	}
}

/* The first --listen that other machines reach; or NULL. */
static const char *find_open_address(const struct serve_options *o)
{
	for (size_t i = 0; i < o->n_listen; i++)
		if (!client_address_is_loopback(o->listen[i]))
			return o->listen[i];
	return NULL;
}

const char *serve_options_open_address(const struct serve_options *o)
{
	return o->insecure_listen || o->tls_required ? NULL : find_open_address(o);
}

bool serve_options_tls_guards(const struct serve_options *o)
{
	return o->tls_required && !o->insecure_listen && find_open_address(o);
}

enum tls_policy serve_options_tls(const struct serve_options *o)
{
	return o->tls_required ? TLS_POLICY_REQUIRE : o->tls ? TLS_POLICY_ALLOW : TLS_POLICY_OFF;
}

/* Nobody gets in by default, and a PATH has no access rules. */
static int check_addresses(const struct serve_options *o, struct failure *why)
{
	const char *address = o->config ? NULL : serve_options_open_address(o);

	if (!address)
		return 0;
	return fail_plain(why, EINVAL, "--listen %s: other machines reach that address, and "
	                  "nothing would keep anybody out; listen on 127.0.0.1 or [::1], say who "
	                  "may come by Allow= in the files of --config, let them in by certificate "
	                  "(--tls DIR --tls-required), or add --insecure-listen if the network is "
	                  "yours alone", address);
}

/* The rules that concern more than one option.  `of_exports`: one such option, or NULL. */
static int check_together(const struct serve_options *o, const char *of_exports,
                          struct failure *why)
{
	if (o->config && o->n_paths)
		return fail_plain(why, EINVAL, "\"%s\" and --config: give paths or a folder, not "
		                  "both", o->paths[0]);
	if (!o->config && !o->n_paths)
		return fail_plain(why, EINVAL, "nothing to serve: give a PATH, or --config DIR");
	if (o->config && of_exports)
		return fail_plain(why, EINVAL,
		                  "--%s does not go with --config: it belongs into the files there",
		                  of_exports);
	if (o->shared && !o->read_only)
		return fail_plain(why, EINVAL, "--shared needs --read-only: two who write the same "
		                  "disk without knowing of each other destroy it");
	if (o->tls_required && !o->tls)
		return fail_plain(why, EINVAL, "--tls-required needs --tls DIR, where the "
		                  "keys are");
	return check_addresses(o, why);
}

/* getopt's table, made from ours; `ret` has one row more. */
static void make_long_options(struct option *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		ret[i] = (struct option) {
			.name = table[i].name,
			.has_arg = table[i].value ? required_argument : no_argument,
		};
	ret[ARRAY_LEN(table)] = (struct option) { 0 };
}

static int parse_each(int argc, char **argv, struct serve_options *o, struct failure *why)
{
	struct option long_options[ARRAY_LEN(table) + 1];
	const char *of_exports = NULL;
	int row = 0;
	int c;

	make_long_options(long_options);
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, ":", long_options, &row)) != -1) {
		if (c == ':')
			return fail_plain(why, EINVAL, "%s needs a value", argv[optind - 1]);
		if (c != 0)
			return fail_plain(why, EINVAL, "there is no such option, or not with a "
			                  "value: %s", argv[optind - 1]);
		if (table[row].set(o, optarg, why) < 0)
			return fail_while(why, "--%s", table[row].name);
		if (table[row].of_exports)
			of_exports = table[row].name;
	}
	o->paths = argv + optind;
	o->n_paths = (size_t) (argc - optind);
	return o->help ? 0 : check_together(o, of_exports, why);
}

int serve_options_parse(int argc, char **argv, struct serve_options *ret, struct failure *why)
{
	struct serve_options o = {
		.description = "",
		.direct = true,
		.max_connections = EXPORT_MAX_CONNECTIONS_DEFAULT,
		.threads = 1,
	};
	int r;

	o.listen = calloc((size_t) argc, sizeof *o.listen);
	o.unix_paths = calloc((size_t) argc, sizeof *o.unix_paths);
	if (!o.listen || !o.unix_paths)
		r = fail(why, ENOMEM, "cannot read the command line");
	else
		r = parse_each(argc, argv, &o, why);
	if (r < 0) {
		serve_options_clear(&o);
		return r;
	}
	*ret = o;
	return 0;
}

void serve_options_clear(struct serve_options *o)
{
	free(o->listen);
	free(o->unix_paths);
	*o = (struct serve_options) { 0 };
}
