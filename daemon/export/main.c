/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-export: serves one block device or file to clients that the negotiator hands over.
 * See docs/processes.md for who may do what.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/service.h"
#include "export/sandbox.h"
#include "export/server.h"

#define EXIT_USAGE 2

struct arguments {
	const char *label;
	struct server_options options;
	const char *sandbox_check;
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
	       "  --control-own-user\n"
	       "                  besides root, its own user may change things there\n"
	       "  --trust-user=NAME\n"
	       "                  besides root and its own user, this one may connect to the channel\n"
	       "  --confine       open no files but its own from the start on, where the kernel has\n"
	       "                  Landlock\n"
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

enum {
	OPT_EXPORTS = 256, OPT_CONTROL, OPT_CONTROL_OWN_USER, OPT_TRUST_USER, OPT_CONFINE, OPT_CHECK,
	OPT_SANDBOX_CHECK, OPT_DEBUG, OPT_HELP, OPT_VERSION,
};

static const struct option options[] = {
	{ "exports", required_argument, NULL, OPT_EXPORTS },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "control-own-user", no_argument, NULL, OPT_CONTROL_OWN_USER },
	{ "trust-user", required_argument, NULL, OPT_TRUST_USER },
	{ "confine", no_argument, NULL, OPT_CONFINE },
	{ "check", no_argument, NULL, OPT_CHECK },
	/* For the tests: enter the sandbox, then try to open a file. */
	{ "sandbox-check", required_argument, NULL, OPT_SANDBOX_CHECK },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

/* One option.  -1 to go on, or what to exit with. */
static int take_argument(int option, struct arguments *args)
{
	switch (option) {
	case OPT_EXPORTS:
		args->options.exports = optarg;
		return -1;
	case OPT_CONTROL:
		args->options.control = optarg;
		return -1;
	case OPT_CONTROL_OWN_USER:
		args->options.control_own_user = true;
		return -1;
	case OPT_TRUST_USER:
		args->options.trusted_user = optarg;
		return -1;
	case OPT_CONFINE:
		args->options.confine = true;
		return -1;
	case OPT_CHECK:
		args->check = true;
		return -1;
	case OPT_SANDBOX_CHECK:
		args->check = true;
		args->sandbox_check = optarg;
		return -1;
	case OPT_DEBUG:
		args->debug = true;
		return -1;
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

static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
	int option, r;

	*ret = (struct arguments) { 0 };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		r = take_argument(option, ret);
		if (r >= 0)
			return r;
	}
	if (optind != argc - 1 || !ret->options.exports)
		return bad_usage("one LABEL and --exports= are required");
	ret->label = argv[optind];
	return -1;
}

/* The one listening record socket that the service manager passes. */
static int take_listener(int *ret, struct failure *why)
{
	int fd = SD_LISTEN_FDS_START, r;

	if (sd_listen_fds(1) != 1 || sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) <= 0)
		return fail_plain(why, EINVAL, "the service manager must pass one listening "
		                  "SOCK_SEQPACKET unix socket (LISTEN_FDS); 'nbdctl serve' does");
	r = service_make_nonblocking(fd, "the channel's socket", why);
	if (r == 0)
		*ret = fd;
	return r;
}

/* An export has a descriptor for each client; take as many as the system lets us have. */
static void raise_limits(void)
{
	(void) service_raise_descriptors();
	/* A file size limit shall be an error of the write, not the end of the process. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

static void give_up_privileges(void)
{
	(void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* Other exports run as the same user: this keeps their hands from our memory. */
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Opens the device, and enters the sandbox if there is something to try in it. */
static int check(const struct arguments *args, const struct export_settings *settings,
                 struct failure *why)
{
	struct device device;
	int r = device_open(&device, settings, why);

	if (r < 0)
		return r;
	if (args->sandbox_check)
		r = sandbox_enter(&args->options, settings, &device, why);
	if (r == 0 && args->sandbox_check && sandbox_check(args->sandbox_check) != 0)
		r = fail_plain(why, EPERM, "%s can be opened in the sandbox", args->sandbox_check);
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
	give_up_privileges();
	if (!args.check)
		(void) take_listener(&listener, &why);
	if (!why.code)
		(void) server_read_settings(&args.options, args.label, &settings, &why);
	if (!why.code && args.check)
		(void) check(&args, &settings, &why);
	else if (!why.code)
		(void) serve(&args.options, &settings, listener, &why);
	if (why.code) {
		log_event(why.code == EBUSY ? EVENT_DEVICE_IN_USE : EVENT_EXPORT_FAILED, NULL, "%s",
		          why.text);
		notify("STATUS=%s", why.text);         /* outlives us */
		if (listener >= 0)
			admit_failed(listener, why.text);
	}
	export_settings_clear(&settings);
	return why.code ? EXIT_FAILURE : EXIT_SUCCESS;
}
