/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-load: a client that costs as little as a client can, to measure NBD servers, and a
 * null server to measure the client and the socket alone.
 */
#include <stdio.h>
#include <string.h>

#include "verbs.h"

static const struct {
	const char *name;
	enum verb verb;
	int (*run)(const struct settings *settings);
	const char *help;
} verbs[] = {
	{"run", VERB_RUN, run_load, "keep requests in flight and measure them"},
	{"connect", VERB_CONNECT, run_connect, "connect, GO, DISC, one after the other"},
	{"idle", VERB_IDLE, run_idle, "hold connections until standard input ends"},
	{"status", VERB_STATUS, run_status, "ask for base:allocation of the whole export"},
	{"null", VERB_NULL, run_null, "be a server that stores nothing"},
};

#define N_VERBS (sizeof verbs / sizeof *verbs)

static void print_help(void)
{
	puts("nbd-load VERB --OPTION VALUE...    measures NBD servers");
	for (size_t i = 0; i < N_VERBS; i++)
		printf("  %-8s %s\n", verbs[i].name, verbs[i].help);
	puts("nbd-load VERB --help tells the verb's options.\n"
	     "Exit status: 0, 1 after any error, 2 for a wrong command line.");
}

int main(int argc, char **argv)
{
	struct settings settings;

	if (argc < 2)
		refuse_usage("which verb?");
	if (strcmp(argv[1], "--help") == 0) {
		print_help();
		return 0;
	}
	for (size_t i = 0; i < N_VERBS; i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		settings_read(verbs[i].verb, argv + 2, &settings);
		return verbs[i].run(&settings);
	}
	refuse_usage("%s: no such verb", argv[1]);
}
