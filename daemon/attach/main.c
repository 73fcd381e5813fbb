/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-attach: keeps a remote export attached as a local block device, as attach.d/LABEL.conf
 * says.
 *
 * A machine that writes its memory to the device to get some back must not need memory for that
 * here: all of ours is locked, and the kernel is told what we are.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include "attach/keeper.h"
#include "attach/settings.h"
#include "base/attr.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/paths.h"
#include "base/service.h"

#define EXIT_USAGE 2

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

struct arguments {
	const char *label;
	const char *folder;
	bool debug;
};

static void print_help(void)
{
	printf("nbd-attach LABEL [OPTION...]\n\n"
	       "Attaches the export that attach.d/LABEL.conf names as a local block device, and\n"
	       "makes new connections for those that die.  Detaches it at SIGTERM, unless it is\n"
	       "mounted or claimed by another driver (dm, md, swap).  Normally\n"
	       "nbd-attach@LABEL.service runs it.\n\n"
	       "  --config=DIR  folder of LABEL.conf (" ATTACH_DIR ")\n"
	       "  --debug       log more\n"
	       "  --help, --version\n");
}

static int bad_usage(const char *what)
{
	if (what)
		fprintf(stderr, "nbd-attach: %s\n", what);
	fprintf(stderr, "Try 'nbd-attach --help'.\n");
	return EXIT_USAGE;
}

enum { OPT_CONFIG = 256, OPT_DEBUG, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

static int take_argument(int option, struct arguments *args)
{
	switch (option) {
	case OPT_CONFIG:
		args->folder = optarg;
		return -1;
	case OPT_DEBUG:
		args->debug = true;
		return -1;
	case OPT_HELP:
		print_help();
		return EXIT_SUCCESS;
	case OPT_VERSION:
		printf("nbd-attach %s\n", VERSION);
		return EXIT_SUCCESS;
	default:
		return bad_usage(NULL);
	}
}

/* -1 to go on, or what to exit with. */
static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
	int option, r;

	*ret = (struct arguments) { .folder = ATTACH_DIR };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		r = take_argument(option, ret);
		if (r >= 0)
			return r;
	}
	if (optind != argc - 1)
		return bad_usage("one LABEL is required");
	ret->label = argv[optind];
	return -1;
}

static int read_wishes(const struct arguments *args, struct attach_wishes *ret, struct failure *why)
{
	struct attach_settings settings = { 0 };
	AUTO_FREE char *path = NULL;
	int r = attach_name_check(args->label, why);

	if (r < 0)
		return r;
	if (asprintf(&path, "%s/%s.conf", args->folder, args->label) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot start");
	}
	r = attach_settings_read(path, &settings, why);
	if (r < 0)
		return r;
	*ret = (struct attach_wishes) {
		.index = NBD_INDEX_ANY,
		.name = args->label,
		.connections = settings.connections,
		.timeout = settings.timeout,
		.dead_timeout = settings.dead_timeout,
		.read_only = settings.read_only,
		.load_module = settings.load_module,
	};
	r = nbd_uri_parse(settings.uri, &ret->uri, why);
	if (r == 0 && settings.device)
		r = nbd_index_of(settings.device, &ret->index, why);
	attach_settings_clear(&settings);
	return r;
}

/* The signals that end it, as a descriptor: a handshake stops waiting for it, too. */
static int signals_as_descriptor(int *ret, struct failure *why)
{
	sigset_t ending;
	int fd;

	(void) sigemptyset(&ending);
	(void) sigaddset(&ending, SIGTERM);
	(void) sigaddset(&ending, SIGINT);
	if (sigprocmask(SIG_BLOCK, &ending, NULL) < 0)
		return fail(why, errno, "cannot wait for signals");
	fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return fail(why, errno, "cannot wait for signals");
	*ret = fd;
	return 0;
}

static int on_signal(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void) fd, (void) events, (void) userdata;
	return sd_event_exit(sd_event_source_get_event(source), EXIT_SUCCESS);
}

/* Both are better had than not, and neither is a condition. */
static void need_no_memory(void)
{
	(void) prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	(void) mlockall(MCL_CURRENT | MCL_FUTURE);
}

/* Attaches, keeps, detaches.  What to exit with, or -errno. */
static int keep(sd_event *event, const struct attach_wishes *wishes, int cancel_fd,
                struct failure *why)
{
	struct keeper *keeper;
	int r = keeper_new(event, wishes, cancel_fd, &keeper, why), ended;

	if (r < 0)
		return r;
	r = keeper_attach(keeper, why);
	if (r == 0)
		r = sd_event_add_io(event, NULL, cancel_fd, EPOLLIN, on_signal, NULL);
	if (r >= 0) {
		notify("READY=1\n");
		ended = sd_event_loop(event);
		notify("STOPPING=1\n");
		r = keeper_detach(keeper, why);
		r = r < 0 ? r : ended;
	}
	keeper_free(keeper);
	return r;
}

static int run(const struct arguments *args, struct failure *why)
{
	static struct attach_wishes wishes;
	sd_event *event = NULL;
	AUTO_FD cancel_fd = -1;
	int r = read_wishes(args, &wishes, why);

	if (r == 0)
		r = signals_as_descriptor(&cancel_fd, why);
	if (r < 0)
		return r;
	need_no_memory();
	r = service_new_event(&event, why);
	if (r == 0)
		r = service_feed_watchdog(event, why);
	if (r == 0)
		r = keep(event, &wishes, cancel_fd, why);
	service_end_event(event);
	return r;
}

int main(int argc, char **argv)
{
	struct failure why = { 0 };
	struct arguments args;
	int r = parse_arguments(argc, argv, &args);

	if (r >= 0)
		return r;
	log_start("nbd-attach", args.debug ? LOG_DEBUG : LOG_INFO);
	(void) signal(SIGPIPE, SIG_IGN);
	r = run(&args, &why);
	if (r == -ECANCELED)
		return EXIT_SUCCESS;
	if (r < 0) {
		log_error("%s", why.text);
		return EXIT_FAILURE;
	}
	return r;
}
