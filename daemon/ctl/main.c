/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl: a table of verbs, one row and one function each.
 */
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/log.h"
#include "ctl/verbs.h"

static const struct verb {
	const char *name;
	const char *help;       /* NULL: not for people */
	int (*run)(int argc, char **argv);
} verbs[] = {
	{ "add", "export a device: write its file and start its unit", verb_add },
	{ "remove", "stop an export and remove its file", verb_remove },
	{ "list", "list the exports", verb_list },
	{ "show", "show all about one export", verb_show },
	{ "status", "show how the whole is doing", verb_status },
	{ "clients", "list the clients that are connected", verb_clients },
	{ "kick", "close a client's connection", verb_kick },
	{ "drain", "let an export finish, flush, and take nobody in", verb_drain },
	{ "resume", "let clients in again", verb_resume },
	{ "clear-error", "after a failed flush: the device is good again", verb_clear_error },
	{ "bitmap", "what clients have changed: dirty bitmaps", verb_bitmap },
	{ "checkpoint", "moments that changes are counted from", verb_checkpoint },
	{ "attach", "make a remote export a local block device", verb_attach },
	{ "detach", "take such a device away again", verb_detach },
	{ "attached", "list the devices that are attached", verb_attached },
	{ "check", "check all files, touching nothing", verb_check },
	{ "tls", "keys and certificates", verb_tls },
	{ "reload", "let what runs read its files again", verb_reload },
	{ "log", "print the journal of an export", verb_log },
	{ "serve", "serve disks over NBD in the foreground, without any setup", verb_serve },
	{ "machine-stops", NULL, verb_machine_stops },
};

static int print_help(void)
{
	(void) printf("Usage: nbdctl VERB [ARGUMENT...]\n"
	              "\n"
	              "Serve disks and files over the network block device protocol (NBD).\n"
	              "\n"
	              "Verbs:\n");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (verbs[i].help)
			(void) printf("  %-12s %s\n", verbs[i].name, verbs[i].help);
	(void) printf("\n"
	              "  --help       show this text; after a verb, all about that verb\n"
	              "  --version    show the version\n"
	              "\n"
	              "To try it:\n"
	              "  truncate -s 1G disk.img\n"
	              "  nbdctl serve disk.img\n");
	return 0;
}

static int print_version(void)
{
	(void) printf("nbdctl (nbd-export) " VERSION "\n");
	return 0;
}

/* Descriptors 0 to 2 must not become sockets that somebody then writes messages to. */
static void fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close_fd(&fd);
}

/* Names are UTF-8, also where nobody has set a locale; tables measure them. */
static void speak_utf8(void)
{
	(void) setlocale(LC_CTYPE, "");
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		(void) setlocale(LC_CTYPE, "C.UTF-8");
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	fill_standard_fds();
	speak_utf8();
	log_start("nbdctl", LOG_INFO);
	if (!word || strcmp(word, "serve") != 0)
		log_wait_for_reader();
	if (!word) {
		log_error("which verb? (nbdctl --help lists them)");
		return EXIT_USAGE;
	}
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
		return print_help();
	if (strcmp(word, "--version") == 0)
		return print_version();
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(word, verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	log_error("there is no verb \"%s\" (nbdctl --help lists them)", word);
	return EXIT_USAGE;
}
