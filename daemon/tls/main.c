/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-tls: takes clients' sockets from the negotiator, makes TLS of them, and gives back plain
 * ones.  The only program that has keys.  See docs/processes.md for who may do what.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/service.h"
#include "tls/check.h"
#include "tls/sandbox.h"
#include "tls/server.h"

#define EXIT_USAGE 2
#define OWN_DESCRIPTORS 64u     /* for all but sessions */
#define DESCRIPTORS_EACH 3u     /* the client's, two plain ends until one is given away */

struct arguments {
	const char *credentials;
	const char *renewed;
	const char *sandbox_check;
	struct check_wishes wishes;
	unsigned last_words;
	bool check, debug;
};

static void print_help(void)
{
	printf("nbd-tls [--credentials=DIR] [OPTION...]\n\n"
	       "Makes TLS connections for nbd-negotiator, which passes it clients' sockets and\n"
	       "gets plain ones back.  It alone has keys.  Normally it is started by systemd or\n"
	       "by 'nbdctl serve', which pass the listening socket (LISTEN_FDS).\n\n"
	       "  --credentials=DIR  folder of server-cert.pem, server-key.pem, ca-cert.pem,\n"
	       "                     ca-crl.pem and psk.keys ($CREDENTIALS_DIRECTORY)\n"
	       "  --renewed=DIR      folder to read instead, if one of the files is in it\n"
	       "  --check            tell what is wrong with the files, and exit\n"
	       "  --host=NAME        with --check: the certificate must be for this host\n"
	       "  --within=DAYS      with --check: tell of what expires so soon (30)\n"
	       "  --debug            log more\n"
	       "  --help, --version\n\n"
	       "SIGHUP reads the keys again; sessions that there are go on with theirs.\n");
}

enum { OPT_CREDENTIALS = 256, OPT_RENEWED, OPT_DEBUG, OPT_CHECK, OPT_HOST, OPT_WITHIN,
       OPT_SANDBOX_CHECK, OPT_LAST_WORDS, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "credentials", required_argument, NULL, OPT_CREDENTIALS },
	{ "renewed", required_argument, NULL, OPT_RENEWED },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "host", required_argument, NULL, OPT_HOST },
	{ "within", required_argument, NULL, OPT_WITHIN },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	/* For the tests: enter the sandbox, then try to open a file. */
	{ "sandbox-check", required_argument, NULL, OPT_SANDBOX_CHECK },
	/* For the tests: milliseconds until a client that takes nothing is given up. */
	{ "last-words", required_argument, NULL, OPT_LAST_WORDS },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

static int bad_usage(const char *what)
{
	if (what)
		fprintf(stderr, "nbd-tls: %s\n", what);
	fprintf(stderr, "Try 'nbd-tls --help'.\n");
	return EXIT_USAGE;
}

static int take_number(const char *usage, unsigned *ret)
{
	char *end;
	unsigned long number = strtoul(optarg, &end, 10);

	if (*optarg < '0' || *optarg > '9' || *end || number > INT_MAX)
		return bad_usage(usage);
	*ret = (unsigned) number;
	return -1;
}

/* The same of --check's own. */
static int take_wish(int option, struct check_wishes *wishes)
{
	if (option == OPT_HOST) {
		if (wishes->n_hosts == CHECK_HOSTS_MAX)
			return bad_usage("--host= is given too often");
		wishes->host[wishes->n_hosts++] = optarg;
		return -1;
	}
	return take_number("--within= takes a number of days", &wishes->within_days);
}

/* One option.  -1 to go on, or what to exit with. */
static int take_argument(int option, struct arguments *args)
{
	switch (option) {
	case OPT_CREDENTIALS:
		args->credentials = optarg;
		return -1;
	case OPT_RENEWED:
		args->renewed = optarg;
		return -1;
	case OPT_DEBUG:
		args->debug = true;
		return -1;
	case OPT_CHECK:
		args->check = true;
		return -1;
	case OPT_HOST:
	case OPT_WITHIN:
		return take_wish(option, &args->wishes);
	case OPT_SANDBOX_CHECK:
		args->sandbox_check = optarg;
		return -1;
	case OPT_LAST_WORDS:
		return take_number("--last-words= takes a number of ms", &args->last_words);
	case OPT_HELP:
		print_help();
		return EXIT_SUCCESS;
	case OPT_VERSION:
		printf("nbd-tls %s\n", VERSION);
		return EXIT_SUCCESS;
	default:
		return bad_usage(NULL);
	}
}

static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
	int option, r;

	*ret = (struct arguments) {
		.credentials = getenv("CREDENTIALS_DIRECTORY"),
		.wishes.within_days = CHECK_WITHIN_DAYS, .last_words = SERVER_LAST_WORDS,
	};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		r = take_argument(option, ret);
		if (r >= 0)
			return r;
	}
	if (optind < argc)
		return bad_usage("it takes options only");
	if (!ret->credentials)
		return bad_usage("--credentials= is required");
	return -1;
}

/* The one listening socket. */
static int take_listener(struct server *server, struct failure *why)
{
	int n = sd_listen_fds(1), r;

	if (n != 1 || sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_SEQPACKET, 1) <= 0)
		return fail_plain(why, ENOTCONN, "it must be passed one listening SOCK_SEQPACKET "
		                  "socket (LISTEN_FDS): start it by systemd, or use 'nbdctl serve'");
	server->listener = SD_LISTEN_FDS_START;
	r = service_make_nonblocking(server->listener, "the listening socket", why);
	if (r == 0)
		r = service_take_null(why);
	return r == 0 ? confine_check_descriptors("TLS program", why) : r;
}

/* For how many sessions there are descriptors. */
static void raise_limits(struct server *server)
{
	unsigned most = service_raise_descriptors();

	server->max_sessions = most > OWN_DESCRIPTORS + DESCRIPTORS_EACH ?
		(most - OWN_DESCRIPTORS) / DESCRIPTORS_EACH : 1;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct server *server = userdata;
	unsigned n = server->figures.n_sessions;

	notify("STOPPING=1");
	log_event(EVENT_TLS_STOPPED, NULL, "stopping (signal %u): %u TLS session%s end with it",
	          si->ssi_signo, n, n == 1 ? "" : "s");
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct failure why = { 0 };

	(void) source;
	(void) si;
	(void) server_reload(userdata, &why);   /* it is in the log */
	return 0;
}

static int prepare_event(struct server *server, struct failure *why)
{
	int r = service_new_event(&server->event, why);

	if (r == 0)
		r = service_feed_watchdog(server->event, why);
	if (r == 0)
		r = service_watch_signals(server->event, on_stop, on_hangup, server, why);
	if (r == 0)
		r = refusal_log_init(&server->refusals, server->event, why);
	if (r == 0)
		r = server_open(server, why);
	if (r == 0)
		r = server_watch_status(server, why);
	return r == 0 ? server_watch_expiry(server, why) : r;
}

/* Everything that needs the file system. */
static int prepare(struct server *server, const struct arguments *args, struct failure *why)
{
	int r = take_listener(server, why);

	server->last_words = args->last_words;
	raise_limits(server);
	if (r == 0)
		r = prepare_event(server, why);
	if (r == 0)
		r = credentials_prepare(why);
	if (r == 0)
		r = credentials_folder_open(args->credentials, &server->folder, why);
	if (r == 0 && args->renewed)
		r = credentials_folder_open(args->renewed, &server->renewed, why);
	return r == 0 ? server_read_keys(server, why) : r;
}

/* Files first, then the threads, then system calls: that is how all threads get all of it. */
static int enter_sandbox(struct server *server, const struct arguments *args, struct failure *why)
{
	const char *folders[] = { args->credentials, args->renewed, NULL };
	int r = sandbox_enter(folders, &server->readable, why);

	if (r == 0 && !args->sandbox_check)
		r = server_start_workers(server, why);
	return r == 0 ? sandbox_filter(server->readable, why) : r;
}

static int serve(struct server *server, struct failure *why)
{
	char keys[96];
	int r = server_listen(server, why);

	if (r < 0)
		return r;
	server_tell_ready(server);
	credentials_describe(server->credentials, keys, sizeof keys);
	log_event(EVENT_TLS_STARTED, NULL, "ready for TLS: %s", keys);
	server_look_at_expiry(server);
	r = sd_event_loop(server->event);
	return r < 0 ? fail(why, -r, "the event loop ended") : 0;
}

static int check_sandbox(struct server *server, const struct arguments *args)
{
	struct failure why = { 0 };

	if (enter_sandbox(server, args, &why) < 0) {
		log_error("%s", why.text);
		return EXIT_USAGE;
	}
	return sandbox_check(args->sandbox_check);
}

/* Reads the files as an administrator would, with nothing else in reach; nobody is served. */
static int check_files(const struct arguments *args)
{
	const char *folders[] = { args->credentials, NULL };
	struct credentials_folder folder = { .fd = -1 };
	struct failure why = { 0 };
	bool readable;
	int r = sandbox_hide_memory(&why);

	if (r == 0)
		r = credentials_folder_open(args->credentials, &folder, &why);
	if (r == 0)
		r = sandbox_enter(folders, &readable, &why);
	if (r == 0)
		r = check_folder(&folder, &args->wishes, &why);
	close_fd(&folder.fd);
	if (r < 0)
		log_error("%s", why.text);
	return r > 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void clear(struct server *server)
{
	if (server->has_news)
		server_close(server);
	credentials_unref(server->credentials);
	close_fd(&server->folder.fd);
	close_fd(&server->renewed.fd);
	service_end_event(server->event);
}

int main(int argc, char **argv)
{
	static struct server server = { .folder.fd = -1, .renewed.fd = -1, .listener = -1 };
	struct failure why = { 0 };
	struct arguments args;
	int r = parse_arguments(argc, argv, &args);

	if (r >= 0)
		return r;
	service_close_inherited();
	log_start("nbd-tls", args.debug ? LOG_DEBUG : LOG_INFO);
	if (args.sandbox_check)
		return check_sandbox(&server, &args);
	if (args.check)
		return check_files(&args);

	r = sandbox_hide_memory(&why);
	if (r == 0)
		r = prepare(&server, &args, &why);
	if (r == 0)
		r = enter_sandbox(&server, &args, &why);
	if (r == 0)
		r = serve(&server, &why);
	if (r < 0)
		log_event(EVENT_TLS_FAILED, NULL, "%s", why.text);
	clear(&server);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
