/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-negotiator: takes clients from the sockets a service manager passes, negotiates, and
 * hands each one over to its export.  See docs/processes.md for who may do what.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "negotiator/sandbox.h"
#include "negotiator/server.h"

#define USEC_PER_SEC 1000000u
#define EXIT_USAGE 2

struct arguments {
	const char *exports;
	const char *channels;
	const char *sandbox_check;
	unsigned start_timeout;         /* seconds */
	unsigned handshake_timeout;
	bool debug;
};

static void print_help(void)
{
	printf("nbd-negotiator --exports=DIR --channels=DIR [OPTION...]\n\n"
	       "Negotiates with NBD clients and hands each one over to the process of its\n"
	       "export, nbd-export.  It opens no disk and cannot.  Normally it is started by\n"
	       "systemd or by 'nbdctl serve', which pass the listening sockets (LISTEN_FDS).\n\n"
	       "  --exports=DIR                folder of LABEL.conf, one for each export\n"
	       "  --channels=DIR               folder of the exports' sockets, LABEL.channel\n"
	       "  --start-timeout=SECONDS      how long an export may take to answer (5)\n"
	       "  --handshake-timeout=SECONDS  how long a client's handshake may take (10)\n"
	       "  --debug                      log more\n"
	       "  --help, --version\n");
}

/* Whole seconds from 1 to an hour. */
static bool parse_seconds(const char *text, unsigned *ret)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < 1 || value > 3600)
		return false;
	*ret = (unsigned) value;
	return true;
}

enum { OPT_EXPORTS = 256, OPT_CHANNELS, OPT_START, OPT_HANDSHAKE, OPT_DEBUG, OPT_CHECK,
       OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "exports", required_argument, NULL, OPT_EXPORTS },
	{ "channels", required_argument, NULL, OPT_CHANNELS },
	{ "start-timeout", required_argument, NULL, OPT_START },
	{ "handshake-timeout", required_argument, NULL, OPT_HANDSHAKE },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	/* For the tests: enter the sandbox, then try to open a file. */
	{ "sandbox-check", required_argument, NULL, OPT_CHECK },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

static int bad_usage(const char *what)
{
	if (what)
		fprintf(stderr, "nbd-negotiator: %s\n", what);
	fprintf(stderr, "Try 'nbd-negotiator --help'.\n");
	return EXIT_USAGE;
}

/* One option.  -1 to go on, or what to exit with. */
static int take_argument(int option, struct arguments *args)
{
	switch (option) {
	case OPT_EXPORTS:
		args->exports = optarg;
		return -1;
	case OPT_CHANNELS:
		args->channels = optarg;
		return -1;
	case OPT_CHECK:
		args->sandbox_check = optarg;
		return -1;
	case OPT_DEBUG:
		args->debug = true;
		return -1;
	case OPT_START:
		return parse_seconds(optarg, &args->start_timeout) ? -1 :
			bad_usage("--start-timeout= takes 1 to 3600 seconds");
	case OPT_HANDSHAKE:
		return parse_seconds(optarg, &args->handshake_timeout) ? -1 :
			bad_usage("--handshake-timeout= takes 1 to 3600 seconds");
	case OPT_HELP:
		print_help();
		return EXIT_SUCCESS;
	case OPT_VERSION:
		printf("nbd-negotiator %s\n", VERSION);
		return EXIT_SUCCESS;
	default:
		return bad_usage(NULL);
	}
}

static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
	int option, r;

	*ret = (struct arguments) { .start_timeout = 5, .handshake_timeout = 10 };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		r = take_argument(option, ret);
		if (r >= 0)
			return r;
	}
	if (optind < argc)
		return bad_usage("it takes options only");
	if (!ret->sandbox_check && (!ret->exports || !ret->channels))
		return bad_usage("--exports= and --channels= are required");
	return -1;
}

/* Checks one passed socket and makes it non-blocking. */
static int take_listener(struct server *server, int fd, struct failure *why)
{
	int flags;

	if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
		return fail_plain(why, EINVAL,
		                  "descriptor %d (of LISTEN_FDS) is not a listening stream socket",
		                  fd);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail(why, errno, "cannot make descriptor %d non-blocking", fd);
	server->listeners[server->n_listeners++] = fd;
	return 0;
}

/* Takes what LISTEN_FDS counts, and closes everything else that was inherited. */
static int take_descriptors(struct server *server, bool need_listeners, struct failure *why)
{
	int n = sd_listen_fds(1);
	int null;

	if (n < 0)
		return fail(why, -n, "LISTEN_FDS");
	if (n == 0 && need_listeners)
		return fail_plain(why, ENOTCONN, "no listening sockets were passed (LISTEN_FDS): "
		                  "start it by systemd, or use 'nbdctl serve'");
	if ((unsigned) n > SERVER_MAX_LISTENERS)
		return fail_plain(why, E2BIG, "%d listening sockets, but at most %u are taken", n,
		                  SERVER_MAX_LISTENERS);

	(void) close_range((unsigned) (SD_LISTEN_FDS_START + n), UINT_MAX, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return fail(why, errno, "cannot open /dev/null");
	if (null > STDERR_FILENO)
		close_fd(&null);

	for (int i = 0; i < n; i++) {
		int r = take_listener(server, SD_LISTEN_FDS_START + i, why);

		if (r < 0)
			return r;
	}
	return 0;
}

/* As many clients as descriptors allow besides listeners, channels and what we use. */
static void set_limits(struct server *server)
{
	struct rlimit limit;
	rlim_t used = server->n_listeners + server->catalogue.n + 32;

	server->max_clients = SERVER_MAX_CLIENTS;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void) setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < used + SERVER_MAX_CLIENTS)
		server->max_clients = limit.rlim_cur > used ? (unsigned) (limit.rlim_cur - used)
		                                            : 1;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	(void) userdata;
	(void) sd_notify(0, "STOPPING=1");
	log_debug("stopping: signal %u", si->ssi_signo);
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int watch_signals(sd_event *event, struct failure *why)
{
	static const int stops[] = { SIGTERM, SIGINT };
	sigset_t set;

	(void) signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(stops); i++)
		sigaddset(&set, stops[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return fail(why, errno, "cannot block signals");
	for (size_t i = 0; i < ARRAY_LEN(stops); i++) {
		int r = sd_event_add_signal(event, NULL, stops[i], on_stop, NULL);

		if (r < 0)
			return fail(why, -r, "cannot watch signals");
	}
	return 0;
}

/* Everything that needs the file system. */
static int prepare(struct server *server, const struct arguments *args, struct failure *why)
{
	int r = take_descriptors(server, true, why);

	if (r == 0)
		r = catalogue_read(args->exports, &server->catalogue, why);
	if (r < 0)
		return r;
	/* Addresses of unix sockets are short, so the channels are reached from here. */
	if (chdir(args->channels) < 0)
		return fail(why, errno, "cannot use the folder of channels %s", args->channels);

	set_limits(server);
	r = sd_event_new(&server->event);
	if (r < 0)
		return fail(why, -r, "cannot create the event loop");
	r = watch_signals(server->event, why);
	return r == 0 ? server_open(server, why) : r;
}

static int serve(struct server *server, struct failure *why)
{
	int r = sandbox_enter(why);

	if (r == 0)
		r = server_listen(server, why);
	if (r < 0)
		return r;
	(void) sd_notifyf(0, "READY=1\nSTATUS=%zu exports", server->catalogue.n);
	r = sd_event_loop(server->event);
	return r < 0 ? fail(why, -r, "the event loop ended") : 0;
}

static int check_sandbox(const char *path)
{
	struct server server = { 0 };
	struct failure why = { 0 };

	if (take_descriptors(&server, false, &why) < 0 || sandbox_enter(&why) < 0) {
		log_error("%s", why.text);
		return EXIT_USAGE;
	}
	return sandbox_check(path);
}

int main(int argc, char **argv)
{
	struct server server = { 0 };
	struct failure why = { 0 };
	struct arguments args;
	int r = parse_arguments(argc, argv, &args);

	if (r >= 0)
		return r;
	log_start("nbd-negotiator", args.debug ? LOG_DEBUG : LOG_INFO);
	if (args.sandbox_check)
		return check_sandbox(args.sandbox_check);

	server.handshake_timeout = args.handshake_timeout * (uint64_t) USEC_PER_SEC;
	server.start_timeout = args.start_timeout * (uint64_t) USEC_PER_SEC;
	r = prepare(&server, &args, &why);
	if (r == 0)
		r = serve(&server, &why);
	if (r < 0)
		log_error("%s", why.text);

	if (server.event)
		server_close(&server);
	catalogue_clear(&server.catalogue);
	sd_event_unref(server.event);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
