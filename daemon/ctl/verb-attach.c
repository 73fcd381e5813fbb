/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl attach: a remote export as a local block device.  Nobody watches over it afterwards; the
 * unit nbd-attach@.service does that.
 */
#include "ctl/verbs.h"

#include <errno.h>
#include <stdio.h>

#include "attach/attach.h"
#include "base/attr.h"
#include "base/clock.h"
#include "base/settings.h"
#include "ctl/command-line.h"

struct attach_options {
	struct verb_options common;
	uint32_t connections;
	uint32_t timeout;
	uint32_t dead_timeout;
	bool read_only;
	bool load_module;
	const char *name;
};

static const struct verb_option options[] = {
	{ 'C', "connections", "N", setting_u32, offsetof(struct attach_options, connections),
	  "over N connections (1), where the server can that\n" },
	{ 't', "timeout", "SECONDS", setting_u32, offsetof(struct attach_options, timeout),
	  "a connection that leaves a request without a reply for as long\n"
	  "is given up (30); 0: with one connection never\n" },
	{ 0, "dead-conn-timeout", "SECONDS", setting_u32,
	  offsetof(struct attach_options, dead_timeout),
	  "without any connection, requests wait as long for a new one\n"
	  "before they fail (600)\n" },
	{ 'r', "read-only", NULL, option_flag, offsetof(struct attach_options, read_only),
	  "though the export could be written\n" },
	{ 'n', "name", "NAME", option_text, offsetof(struct attach_options, name),
	  "what `detach` calls it; once attached, it is not attached again\n" },
	{ 0, "load-module", NULL, option_flag, offsetof(struct attach_options, load_module),
	  "load the kernel's driver, nbd.ko, if it is not\n" },
};

static const struct command command = {
	.verb = "attach",
	.arguments = "URI [/dev/nbdN]",
	.about =
"Make a remote export a local block device, wait until it is there, and print its\n"
"path.  URI is nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH, or with nbds\n"
"the same over TLS.  What is attached already at that device, or by that name, stays\n"
"and is printed.  As root.\n"
"\n"
"Connections that die are not made again; nbd-attach@.service does that, see\n"
"nbd-attach(8).\n",
	.min_words = 1,
	.max_words = 2,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int read_wishes(const struct attach_options *o, struct attach_wishes *ret,
                       struct failure *why)
{
	int r = nbd_uri_parse(o->common.words[0], &ret->uri, why);

	if (r == 0 && o->common.n_words == 2)
		r = nbd_index_of(o->common.words[1], &ret->index, why);
	if (r == 0 && o->name)
		r = attach_name_check(o->name, why);
	if (r == 0 && (o->connections < 1 || o->connections > NBD_MAX_SOCKETS))
		r = fail_plain(why, EINVAL, "--connections: from 1 to %u", NBD_MAX_SOCKETS);
	return r;
}

static int attach(const void *options_read, struct failure *why)
{
	const struct attach_options *o = options_read;
	const struct client_limits limits = { .deadline = monotonic_us() + ATTACH_PATIENCE,
	                                      .cancel_fd = -1 };
	struct attach_wishes wishes = {
		.index = NBD_INDEX_ANY,
		.name = o->name,
		.connections = o->connections,
		.timeout = o->timeout,
		.dead_timeout = o->dead_timeout,
		.read_only = o->read_only,
		.load_module = o->load_module,
	};
	struct nbd_driver driver;
	struct attached attached;
	int r = read_wishes(o, &wishes, why);

	if (r == 0)
		r = attach_open_driver(o->load_module, &driver, why);
	if (r < 0)
		return r;
	r = attach_device(&driver, &wishes, &limits, NULL, &attached, why);
	nbd_driver_close(&driver);
	if (r == 0)
		(void) printf("/dev/nbd%d\n", attached.index);
	return r;
}

int verb_attach(int argc, char **argv)
{
	struct attach_options o = { .connections = 1, .timeout = ATTACH_TIMEOUT,
	                            .dead_timeout = ATTACH_DEAD_TIMEOUT };

	return command_run(&command, argc, argv, &o, attach);
}
