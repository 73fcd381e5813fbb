/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl detach: takes an attached device away, by its path or its name.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach/attach.h"
#include "base/attr.h"
#include "base/clock.h"
#include "ctl/command-line.h"

struct detach_options {
	struct verb_options common;
	bool force;
};

static const struct verb_option options[] = {
	{ 'f', "force", NULL, option_flag, offsetof(struct detach_options, force),
	  "also while it is in use: who uses it gets I/O errors\n" },
};

static const struct command command = {
	.verb = "detach",
	.arguments = "/dev/nbdN|NAME",
	.about =
"Take an attached device away, by its path or by the name it was attached with.\n"
"One that is mounted, or claimed by another driver (dm, md, swap), stays; a program\n"
"that merely has it open does not count.  As root.\n",
	.min_words = 1,
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int find_by_name(const char *name, int *ret, struct failure *why)
{
	AUTO_FREE struct nbd_state *list = NULL;
	size_t n;
	int r = attach_name_check(name, why);

	if (r == 0)
		r = nbd_state_list(SYS_BLOCK, &list, &n, why);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (list[i].ours && strcmp(list[i].identity.name, name) == 0) {
			*ret = list[i].index;
			return 0;
		}
	}
	return r < 0 ? r : fail_plain(why, ENOENT, "nothing is attached by the name %s (nbdctl "
	                              "attached lists what is)", name);
}

static int find_by_path(const char *path, int *ret, struct failure *why)
{
	struct nbd_state state;
	int r = nbd_index_of(path, ret, why);

	if (r == 0 && (!nbd_state_read(SYS_BLOCK, *ret, &state) || !state.connected))
		r = fail_plain(why, ENOENT, "%.64s is not attached to anything", path);
	return r;
}

static int detach(const void *options_read, struct failure *why)
{
	const struct detach_options *o = options_read;
	const char *word = o->common.words[0];
	const struct client_limits limits = { .deadline = monotonic_us() + ATTACH_PATIENCE,
	                                      .cancel_fd = -1 };
	struct nbd_driver driver;
	int index, r;

	r = *word == '/' ? find_by_path(word, &index, why) : find_by_name(word, &index, why);
	if (r == 0)
		r = attach_open_driver(false, &driver, why);
	if (r < 0)
		return r;
	r = attach_detach(&driver, index, o->force, &limits, why);
	nbd_driver_close(&driver);
	if (r == 0)
		(void) printf("detached /dev/nbd%d\n", index);
	return r;
}

int verb_detach(int argc, char **argv)
{
	struct detach_options o = { .force = false };

	return command_run(&command, argc, argv, &o, detach);
}
