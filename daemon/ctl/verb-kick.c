/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl kick: closes one connection, or all of an export.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "ctl/command-line.h"
#include "ctl/running.h"

struct kick_options {
	struct verb_options common;
	bool all;
};

static const struct verb_option options[] = {
	{ 0, "all", NULL, option_flag, offsetof(struct kick_options, all),
	  "all of the export's clients\n" },
};

static const struct command command = {
	.verb = "kick",
	.arguments = "LABEL CONNECTION|--all",
	.about =
"Close a client's connection; `nbdctl clients` tells its number.  It may connect\n"
"again.  What it wrote and was not answered may or may not be on the device.\n",
	.min_words = 1,
	.max_words = 2,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int parse_number(const char *text, uint64_t *ret, struct failure *why)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || *end || *text < '0' || *text > '9')
		return fail_plain(why, EINVAL, "\"%.64s\" is not a connection's number (nbdctl "
		                  "clients tells them)", text);
	return 0;
}

static int kick_one(sd_bus *bus, const char *label, uint64_t connection, struct failure *why)
{
	return control_call(bus, CONTROL_EXPORT(label), "Kick", &connection, CONTROL_PATIENCE,
	                    NULL, why);
}

/* One that has left meanwhile is gone as wished: that is told, but counts as nobody's fault. */
static int kick_all(sd_bus *bus, const char *label, struct failure *why)
{
	struct running_client *clients;
	size_t n, n_kicked = 0;
	int r = running_clients(bus, label, &clients, &n, why);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct failure here = { 0 };

		r = kick_one(bus, label, clients[i].connection, &here);
		if (r < 0 && n_kicked == 0 && i == n - 1)
			*why = here;
		n_kicked += r == 0;
	}
	running_clients_free(clients, n);
	if (n > 0 && n_kicked == 0)
		return -why->code;
	(void) printf("kicked %zu client%s of %s\n", n_kicked, n_kicked == 1 ? "" : "s", label);
	return 0;
}

static int kick(const void *options_read, struct failure *why)
{
	const struct kick_options *o = options_read;
	const char *label = o->common.words[0];
	uint64_t connection = 0;
	AUTO_BUS *bus = NULL;
	int r = 0;

	if (o->all == (o->common.n_words == 2))
		return fail_plain(why, EINVAL, "give a connection's number, or --all");
	if (!o->all)
		r = parse_number(o->common.words[1], &connection, why);
	if (r == 0)
		r = running_connect(&o->common.places, label, &bus, why);
	if (r < 0)
		return r;
	if (o->all)
		return kick_all(bus, label, why);
	r = kick_one(bus, label, connection, why);
	if (r == 0)
		(void) printf("kicked client %" PRIu64 " of %s\n", connection, label);
	return r;
}

int verb_kick(int argc, char **argv)
{
	struct kick_options o = { .all = false };

	return command_run(&command, argc, argv, &o, kick);
}
