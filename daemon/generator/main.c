/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-export-generator: a systemd.generator(7).  Tells systemd, at each start and each reload,
 * about the exports in exports.d.  A bad file is named in the log and skipped; the others are
 * not its concern.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/log.h"
#include "base/paths.h"
#include "generator/export-units.h"

#define NAME "nbd-export-generator"
#define EXIT_USAGE 2

static const struct option options[] = {
	{ "exports", required_argument, NULL, 'e' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ 0 },
};

static void print_help(void)
{
	printf(NAME " [--exports=DIR] NORMAL [EARLY LATE]\n\n"
	       "Writes what systemd has to know about the exports, into the folder NORMAL.\n"
	       "systemd runs it; see systemd.generator(7).\n\n"
	       "  --exports=DIR   folder of LABEL.conf (" EXPORTS_DIR ")\n"
	       "  --help, --version\n");
}

/* -1 to go on, or what to exit with. */
static int parse_arguments(int argc, char **argv, const char **ret_exports, const char **ret_dir)
{
	int option;

	*ret_exports = EXPORTS_DIR;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'e':
			*ret_exports = optarg;
			break;
		case 'h':
			print_help();
			return EXIT_SUCCESS;
		case 'v':
			printf(NAME " %s\n", VERSION);
			return EXIT_SUCCESS;
		default:
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1 && argc - optind != 3) {
		fprintf(stderr, NAME ": takes one folder or three\nTry '" NAME " --help'.\n");
		return EXIT_USAGE;
	}
	*ret_dir = argv[optind];
	return -1;
}

/* systemd gives generators /dev/null for stderr.  The journal is there at a reload; before it
 * runs, at the start of the machine, the kernel's log is. */
static void find_log(void)
{
	AUTO_FD kernel = -1;
	struct stat st;

	log_start(NAME, LOG_INFO);
	if (fstat(STDERR_FILENO, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3) ||
	    log_use_journal())
		return;
	kernel = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (kernel >= 0)
		(void) dup2(kernel, STDERR_FILENO);
}

/* `label`: NULL if the file's name makes none. */
static void tell_skipped(const char *label, const struct failure *why)
{
	log_event(EVENT_SETTINGS_SKIPPED, &(struct subject) { .export_label = label },
	          "%s; the file is skipped", why->text);
}

static void skip_file(void *userdata, const char *path, const struct failure *why)
{
	AUTO_FREE char *label = NULL;
	struct failure ignored = { 0 };

	(void) userdata;
	(void) export_label_of(path, &label, &ignored);
	tell_skipped(label, why);
}

/* fstab's generator does the same: no udev there, and waiting for a device would be for ever. */
static bool has_device_units(void)
{
	const char *kind = getenv("SYSTEMD_VIRTUALIZATION");

	return !kind || strncmp(kind, "container:", 10) != 0;
}

static int write_units(int dir, const struct export_settings *exports, size_t n)
{
	int status = EXIT_SUCCESS;

	for (size_t i = 0; i < n; i++) {
		struct failure why = { 0 };

		if (export_units_write(dir, &exports[i], has_device_units(), &why) < 0) {
			tell_skipped(exports[i].label, &why);
			if (why.code != EINVAL && why.code != ENAMETOOLONG)
				status = EXIT_FAILURE;
		}
	}
	return status;
}

int main(int argc, char **argv)
{
	struct export_settings *exports = NULL;
	const char *exports_dir, *output;
	struct failure why = { 0 };
	AUTO_FD dir = -1;
	size_t n = 0;
	int status = parse_arguments(argc, argv, &exports_dir, &output);

	if (status >= 0)
		return status;
	find_log();
	if (access(exports_dir, F_OK) < 0 && errno == ENOENT)
		return EXIT_SUCCESS;            /* installed, and not in use */
	dir = open(output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		(void) fail(&why, errno, "cannot open the folder %s", output);
	else
		(void) export_settings_read_folder(exports_dir, &exports, &n, skip_file, NULL, &why);
	if (why.code) {
		log_error("%s", why.text);
		return EXIT_FAILURE;
	}
	status = write_units(dir, exports, n);
	for (size_t i = 0; i < n; i++)
		export_settings_clear(&exports[i]);
	free(exports);
	return status;
}
