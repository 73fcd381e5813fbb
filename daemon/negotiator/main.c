/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-negotiator: takes clients from the sockets a service manager passes, negotiates, and
 * hands each one over to its export.  See docs/processes.md for who may do what.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/service.h"
#include "negotiator/control.h"
#include "negotiator/sandbox.h"
#include "negotiator/server.h"

#define EXIT_USAGE 2

struct arguments {
	const char *exports;
	const char *channels;
	const char *config;
	const char *control;
	const char *tls;
	enum tls_policy tls_policy;
	enum client_certificate client_certificate;
	const char *sandbox_check;
	unsigned start_timeout;         /* seconds; 0: as the file says */
	unsigned handshake_timeout;
	unsigned pause;                 /* seconds */
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
	       "  --config=FILE                negotiator.conf: access rules and limits for all\n"
	       "  --control=PATH               a socket to be asked and told by nbdctl\n"
	       "  --tls=PATH                   nbd-tls's socket\n"
	       "  --tls-policy=POLICY          off, allow or require, whatever the file says\n"
	       "  --client-certificate=WHETHER none, optional or required, whatever the file says\n"
	       "  --start-timeout=SECONDS      how long an export may take to answer (5)\n"
	       "  --handshake-timeout=SECONDS  how long a client's handshake may take (10)\n"
	       "  --pause=SECONDS              after a start that failed end only then, for a service\n"
	       "                               manager that starts it again at once\n"
	       "  --debug                      log more\n"
	       "  --help, --version\n\n"
	       "SIGHUP reads the files again, without disturbing a client.\n");
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

enum { OPT_EXPORTS = 256, OPT_CHANNELS, OPT_CONFIG, OPT_CONTROL, OPT_TLS, OPT_POLICY,
       OPT_CERTIFICATE, OPT_START, OPT_HANDSHAKE,
       OPT_PAUSE, OPT_DEBUG, OPT_CHECK, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "exports", required_argument, NULL, OPT_EXPORTS },
	{ "channels", required_argument, NULL, OPT_CHANNELS },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "tls", required_argument, NULL, OPT_TLS },
	{ "tls-policy", required_argument, NULL, OPT_POLICY },
	{ "client-certificate", required_argument, NULL, OPT_CERTIFICATE },
	{ "start-timeout", required_argument, NULL, OPT_START },
	{ "handshake-timeout", required_argument, NULL, OPT_HANDSHAKE },
	{ "pause", required_argument, NULL, OPT_PAUSE },
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
	case OPT_CONFIG:
		args->config = optarg;
		return -1;
	case OPT_CONTROL:
		args->control = optarg;
		return -1;
	case OPT_TLS:
		args->tls = optarg;
		return -1;
	case OPT_POLICY:
		return setting_tls_policy(optarg, &args->tls_policy, &(struct failure) { 0 }) == 0 ?
			-1 : bad_usage("--tls-policy= takes off, allow or require");
	case OPT_CERTIFICATE:
		return setting_client_certificate(optarg, &args->client_certificate,
		                                  &(struct failure) { 0 }) == 0 ? -1 :
			bad_usage("--client-certificate= takes none, optional or required");
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
	case OPT_PAUSE:
		return parse_seconds(optarg, &args->pause) ? -1 :
			bad_usage("--pause= takes 1 to 3600 seconds");
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

	*ret = (struct arguments) { 0 };
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
	char what[32];
	int r;

	if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
		return fail_plain(why, EINVAL,
		                  "descriptor %d (of LISTEN_FDS) is not a listening stream socket",
		                  fd);
	(void) snprintf(what, sizeof what, "descriptor %d", fd);
	r = service_make_nonblocking(fd, what, why);
	if (r == 0)
		server->listeners[server->n_listeners++] = fd;
	return r;
}

/* Takes what LISTEN_FDS counts. */
static int take_descriptors(struct server *server, bool need_listeners, struct failure *why)
{
	int n = sd_listen_fds(1), r;

	if (n < 0)
		return fail(why, -n, "LISTEN_FDS");
	if (n == 0 && need_listeners)
		return fail_plain(why, ENOTCONN, "no listening sockets were passed (LISTEN_FDS): "
		                  "start it by systemd, or use 'nbdctl serve'");
	if ((unsigned) n > SERVER_MAX_LISTENERS)
		return fail_plain(why, E2BIG, "%d listening sockets, but at most %u are taken", n,
		                  SERVER_MAX_LISTENERS);

	r = service_take_null(why);
	for (int i = 0; i < n && r == 0; i++)
		r = take_listener(server, SD_LISTEN_FDS_START + i, why);
	return r;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	(void) userdata;
	notify("STOPPING=1");
	log_debug("stopping: signal %u", si->ssi_signo);
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

/* The path stays good when the working directory changes; the file need not exist. */
static char *absolute(const char *path)
{
	char *cwd, *ret = NULL;

	if (*path == '/')
		return strdup(path);
	cwd = get_current_dir_name();
	if (!cwd || asprintf(&ret, "%s/%s", cwd, path) < 0)
		ret = NULL;
	free(cwd);
	return ret;
}

static int note_files(struct server *server, const struct arguments *args, struct failure *why)
{
	server->files = (struct server_files) {
		.exports = absolute(args->exports),
		.config = args->config ? absolute(args->config) : NULL,
		.start_timeout = args->start_timeout,
		.handshake_timeout = args->handshake_timeout,
		.tls = args->tls_policy,
		.client_certificate = args->client_certificate,
	};
	if (!server->files.exports || (args->config && !server->files.config))
		return fail(why, errno, "cannot tell where the files are");
	return 0;
}

/* What everything else needs. */
static int prepare_event(struct server *server, struct failure *why)
{
	int r = service_new_event(&server->event, why);

	if (r == 0)
		r = service_feed_watchdog(server->event, why);
	if (r == 0)
		r = service_watch_signals(server->event, on_stop, on_hangup, server, why);
	if (r == 0)
		r = server_open(server, why);
	if (r == 0)
		r = refusal_log_init(&server->refusals, server->event, why);
	return r == 0 ? server_watch_status(server, why) : r;
}

static int prepare_control(struct server *server, const char *path, struct control_server **ret,
                           struct failure *why)
{
	int fd;
	int r;

	if (!path)
		return 0;
	r = control_listen(path, CONTROL_GROUP, &fd, why);
	return r < 0 ? r : negotiator_control_serve(server, fd, ret, why);
}

/* Everything that needs the file system. */
static int prepare(struct server *server, const struct arguments *args,
                   struct control_server **ret_control, struct failure *why)
{
	int r = take_descriptors(server, true, why);

	server->most_descriptors = service_raise_descriptors();
	if (r == 0)
		r = note_files(server, args, why);
	if (r == 0)
		r = prepare_event(server, why);
	if (r == 0)
		r = tls_link_init(&server->tls, server->event, args->tls, why);
	if (r == 0)
		r = server_read_files(server, why);
	if (r == 0)
		r = prepare_control(server, args->control, ret_control, why);
	if (r < 0)
		return r;
	/* Addresses of unix sockets are short, so the channels are reached from here. */
	if (chdir(args->channels) < 0)
		return fail(why, errno, "cannot use the folder of channels %s", args->channels);
	return 0;
}

/* The folders in which settings are: whole ones, for files in them are replaced. */
static int enter_sandbox(struct server_files *files, struct failure *why)
{
	AUTO_FREE char *config = strdup(files->config ? files->config : "");
	const char *folders[] = { files->exports, NULL, NULL };

	if (!config)
		return fail(why, ENOMEM, "cannot enter the sandbox");
	if (files->config)
		folders[1] = dirname(config);
	return sandbox_enter(files->exports ? folders : NULL, &files->readable, why);
}

static int serve(struct server *server, struct failure *why)
{
	int r = enter_sandbox(&server->files, why);

	if (r == 0)
		r = server_listen(server, why);
	if (r < 0)
		return r;
	server_tell_ready(server);
	log_event(EVENT_NEGOTIATOR_STARTED, NULL, "taking clients for %zu export%s",
	          server->catalogue->n, server->catalogue->n == 1 ? "" : "s");
	r = sd_event_loop(server->event);
	if (r >= 0)
		log_event(EVENT_NEGOTIATOR_STOPPED, NULL, "stopped");
	return r < 0 ? fail(why, -r, "the event loop ended") : 0;
}

/* With --exports and --config as when serving: what is beneath can be opened. */
static int check_sandbox(const struct arguments *args)
{
	struct server_files files = { .exports = (char *) args->exports,
	                              .config = (char *) args->config };
	struct server server = { 0 };
	struct failure why = { 0 };

	if (take_descriptors(&server, false, &why) < 0 || enter_sandbox(&files, &why) < 0) {
		log_error("%s", why.text);
		return EXIT_USAGE;
	}
	return sandbox_check(args->sandbox_check);
}

/* It would fail again, and the next entry of the log would be like this one.  Any signal ends it. */
static void pause_after_failure(const struct arguments *args, const struct failure *why)
{
	notify("STATUS=cannot start, will be tried again: %.300s", why->text);
	if (args->pause)
		service_wait_for_signal(args->pause);
}

static void clear(struct server *server)
{
	if (server->event)
		server_close(server);
	catalogue_unref(server->catalogue);
	negotiator_settings_clear(&server->settings);
	free(server->files.exports);
	free(server->files.config);
	service_end_event(server->event);
}

int main(int argc, char **argv)
{
	struct control_server *control = NULL;
	static struct server server;
	struct failure why = { 0 };
	struct arguments args;
	int r = parse_arguments(argc, argv, &args);

	if (r >= 0)
		return r;
	service_close_inherited();
	log_start("nbd-negotiator", args.debug ? LOG_DEBUG : LOG_INFO);
	if (args.sandbox_check)
		return check_sandbox(&args);

	r = prepare(&server, &args, &control, &why);
	if (r == 0)
		r = serve(&server, &why);
	if (r < 0)
		log_event(EVENT_NEGOTIATOR_FAILED, NULL, "%s", why.text);
	control_server_free(control);
	clear(&server);
	if (r < 0)
		pause_after_failure(&args, &why);
	return r < 0 ? EXIT_FAILURE : server.files.wanted_anew ? SERVER_ANEW : EXIT_SUCCESS;
}
