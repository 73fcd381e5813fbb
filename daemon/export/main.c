/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-export: serves one block device or file to clients that the negotiator hands over.
 * See docs/processes.md for who may do what.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "export/server.h"

#define EXIT_USAGE 2

struct arguments {
	const char *label;
	struct server_options options;
	bool check, debug;
};

static void print_help(void)
{
	printf("nbd-export LABEL --exports=DIR [OPTION...]\n\n"
	       "Serves the block device or file that DIR/LABEL.conf names to the NBD clients\n"
	       "which nbd-negotiator hands over.  Normally it is started by systemd or by\n"
	       "'nbdctl serve', which pass the socket of its channel (LISTEN_FDS).\n\n"
	       "  --exports=DIR   folder of LABEL.conf\n"
	       "  --control=PATH  listen for nbdctl and busctl on a unix socket\n"
	       "  --trust-user=NAME\n"
	       "                  besides root and its own user, this one may connect to the channel\n"
	       "  --check         open and lock the device as if to serve it, and end: exit\n"
	       "                  status 0, or 1 with the reason\n"
	       "  --debug         log each request\n"
	       "  --help, --version\n");
}

static int bad_usage(const char *what)
{
	if (what)
		fprintf(stderr, "nbd-export: %s\n", what);
	fprintf(stderr, "Try 'nbd-export --help'.\n");
	return EXIT_USAGE;
}

enum { OPT_EXPORTS = 256, OPT_CONTROL, OPT_TRUST_USER, OPT_CHECK, OPT_DEBUG, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "exports", required_argument, NULL, OPT_EXPORTS },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "trust-user", required_argument, NULL, OPT_TRUST_USER },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

/* -1 to go on, or what to exit with. */
static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
	int option;

	*ret = (struct arguments) { 0 };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case OPT_EXPORTS:
			ret->options.exports = optarg;
			break;
		case OPT_CONTROL:
			ret->options.control = optarg;
			break;
		case OPT_TRUST_USER:
			ret->options.trusted_user = optarg;
			break;
		case OPT_CHECK:
			ret->check = true;
			break;
		case OPT_DEBUG:
			ret->debug = true;
			break;
		case OPT_HELP:
			print_help();
			return EXIT_SUCCESS;
		case OPT_VERSION:
			printf("nbd-export %s\n", VERSION);
			return EXIT_SUCCESS;
		default:
			return bad_usage(NULL);
		}
	}
	if (optind != argc - 1 || !ret->options.exports)
		return bad_usage("one LABEL and --exports= are required");
	ret->label = argv[optind];
	return -1;
}

/* The one listening record socket that the service manager passes. */
static int take_listener(int *ret, struct failure *why)
{
	int fd = SD_LISTEN_FDS_START, flags;

	if (sd_listen_fds(1) != 1 || sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) <= 0)
		return fail_plain(why, EINVAL, "the service manager must pass one listening "
		                  "SOCK_SEQPACKET unix socket (LISTEN_FDS); 'nbdctl serve' does");
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail(why, errno, "cannot make the channel's socket non-blocking");
	*ret = fd;
	return 0;
}

/* An export has a descriptor for each client; take as many as the system lets us have. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* A file size limit shall be an error of the write, not the end of the process. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	(void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int check(const struct export_settings *settings, struct failure *why)
{
	struct device device;
	int r = device_open(&device, settings, why);

	if (r == 0)
		device_close(&device);
	return r;
}

int main(int argc, char **argv)
{
	struct export_settings settings = { 0 };
	struct failure why = { 0 };
	struct arguments args;
	int r, listener = -1;

	r = parse_arguments(argc, argv, &args);
	if (r >= 0)
		return r;
	log_start("nbd-export", args.debug ? LOG_DEBUG : LOG_INFO);
	log_set_export(args.label);
	raise_limits();
	if (!args.check)
		(void) take_listener(&listener, &why);
	if (!why.code)
		(void) server_read_settings(&args.options, args.label, &settings, &why);
	if (!why.code && args.check)
		(void) check(&settings, &why);
	else if (!why.code)
		(void) serve(&args.options, &settings, listener, &why);
	if (why.code) {
		log_event(why.code == EBUSY ? EVENT_DEVICE_IN_USE : EVENT_EXPORT_FAILED, NULL, "%s",
		          why.text);
		if (listener >= 0)
			admit_failed(listener, why.text);
	}
	export_settings_clear(&settings);
	return why.code ? EXIT_FAILURE : EXIT_SUCCESS;
}
