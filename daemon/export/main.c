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
#include "export/admit.h"
#include "export/export.h"

#define EXIT_USAGE 2

struct arguments {
	const char *label;
	const char *exports;
	bool check, debug;
};

/* Everything that lives as long as the process. */
struct server {
	struct export export;
	struct admission admission;
	sd_event *event;
	bool runs;
};

static void print_help(void)
{
	printf("nbd-export LABEL --exports=DIR [OPTION...]\n\n"
	       "Serves the block device or file that DIR/LABEL.conf names to the NBD clients\n"
	       "which nbd-negotiator hands over.  Normally it is started by systemd or by\n"
	       "'nbdctl serve', which pass the socket of its channel (LISTEN_FDS).\n\n"
	       "  --exports=DIR   folder of LABEL.conf\n"
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

enum { OPT_EXPORTS = 256, OPT_CHECK, OPT_DEBUG, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "exports", required_argument, NULL, OPT_EXPORTS },
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
			ret->exports = optarg;
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
	if (optind != argc - 1 || !ret->exports)
		return bad_usage("one LABEL and --exports= are required");
	ret->label = argv[optind];
	return -1;
}

static int read_settings(const struct arguments *args, struct export_settings *ret,
                         struct failure *why)
{
	AUTO_FREE char *path = NULL;

	if (export_label_check(args->label, why) < 0)
		return -why->code;
	if (asprintf(&path, "%s/%s.conf", args->exports, args->label) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot name the settings file");
	}
	return export_settings_read(path, ret, why);
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

/* Where a failed flush is remembered: until the machine is restarted, whoever we are. */
static const char *state_folder(char *buf, size_t size)
{
	const char *given = getenv("RUNTIME_DIRECTORY"), *user = getenv("XDG_RUNTIME_DIR");

	if (given && *given)
		return given;
	if (geteuid() == 0)
		return "/run/nbd-export";
	if (user && *user)
		(void) snprintf(buf, size, "%s/nbd-export", user);
	else
		(void) snprintf(buf, size, "/tmp/nbd-export-%u", geteuid());
	return buf;
}

static void on_gone(struct export *export, struct conn *conn)
{
	admit_gone(&container_of(export, struct server, export)->admission, conn);
}

static void on_drained(struct export *export)
{
	struct server *server = container_of(export, struct server, export);

	(void) sd_event_exit(server->event, 0);
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;

	(void) source;
	(void) fd;
	(void) events;
	mailbox_empty(&server->export.mail);
	return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct server *server = userdata;

	(void) source;
	if (server->admission.draining)
		return 0;
	log_about(LOG_INFO, &(struct subject) { server->export.settings->label, NULL, NULL },
	          "%s: finishing what is in flight", strsignal((int) info->ssi_signo));
	(void) sd_notify(false, "STOPPING=1\nSTATUS=Finishing what is in flight");
	admit_drain(&server->admission);
	export_drain(&server->export);
	return 0;
}

/* sd-event takes them from a signalfd, so every thread that starts must have them blocked. */
static int watch_signals(struct server *server, struct failure *why)
{
	static const int signals[] = { SIGTERM, SIGINT };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		int r = sd_event_add_signal(server->event, NULL, signals[i], on_signal, server);

		if (r < 0)
			return fail(why, -r, "cannot watch for signals");
	}
	return 0;
}

static int start(struct server *server, const struct export_settings *settings, int listener,
                 struct failure *why)
{
	char buf[PATH_MAX];
	struct device device;
	int r;

	r = device_open(&device, settings, why);
	if (r < 0)
		return r;
	r = export_init(&server->export, settings, &device, state_folder(buf, sizeof buf), why);
	server->export.on_gone = on_gone;
	server->export.on_drained = on_drained;
	if (r == 0)
		r = watch_signals(server, why);
	if (r == 0)
		r = admit_start(&server->admission, &server->export, server->event, listener, why);
	if (r < 0)
		return r;
	r = sd_event_add_io(server->event, NULL, server->export.mail.event, EPOLLIN, on_mail, server);
	if (r < 0)
		return fail(why, -r, "cannot watch for the rings' letters");
	r = export_start(&server->export, why);
	server->runs = r == 0;
	return r;
}

static int serve(const struct export_settings *settings, int listener, struct failure *why)
{
	struct server *server = calloc(1, sizeof *server);
	int r;

	if (!server)
		return fail(why, ENOMEM, "cannot start");
	r = sd_event_new(&server->event);
	if (r < 0) {
		free(server);
		return fail(why, -r, "cannot make an event loop");
	}
	r = start(server, settings, listener, why);
	if (r == 0) {
		(void) sd_notifyf(false, "READY=1\nSTATUS=Serving %s, %" PRIu64 " MiB", settings->device,
		                  server->export.device.size >> 20);
		r = sd_event_loop(server->event);
		if (r < 0)
			(void) fail(why, -r, "the event loop ended");
		else if (server->export.last_flush_error)
			r = fail_plain(why, EIO, "the last flush failed: what was written since the one "
			               "before may be lost");
	}
	if (server->runs) {
		admit_stop(&server->admission);
		export_deinit(&server->export);
	}
	sd_event_unref(server->event);
	free(server);
	return r;
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
	raise_limits();
	if (!args.check)
		(void) take_listener(&listener, &why);
	if (!why.code)
		(void) read_settings(&args, &settings, &why);
	if (!why.code && args.check)
		(void) check(&settings, &why);
	else if (!why.code)
		(void) serve(&settings, listener, &why);
	if (why.code) {
		log_about(LOG_ERR, &(struct subject) { args.label, NULL, NULL }, "%s", why.text);
		if (listener >= 0)
			admit_failed(listener, why.text);
	}
	export_settings_clear(&settings);
	return why.code ? EXIT_FAILURE : EXIT_SUCCESS;
}
