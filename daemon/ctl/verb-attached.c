/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl attached: the kernel's nbd devices that are connected, whoever connected them.
 */
#include "ctl/verbs.h"

#include <stdio.h>
#include <stdlib.h>

#include "attach/device.h"
#include "attach/watch-note.h"
#include "base/attr.h"
#include "ctl/command-line.h"

enum { DEVICE, NAME, URI, SIZE, MODE, CONNECTIONS, LIVE, STATE, REASON, BACKEND };

static const struct column columns[] = {
	[DEVICE] = { "DEVICE", COLUMN_TEXT, false, "its path" },
	[NAME] = { "NAME", COLUMN_TEXT, false, "what it was attached as" },
	[URI] = { "URI", COLUMN_TEXT, false, "of the export" },
	[SIZE] = { "SIZE", COLUMN_SIZE, false, "its size" },
	[MODE] = { "MODE", COLUMN_TEXT, false, "rw or ro" },
	[CONNECTIONS] = { "CONNECTIONS", COLUMN_NUMBER, false, "that it was attached with" },
	[LIVE] = { "LIVE", COLUMN_NUMBER, true, "of them, as far as nbd-attach knows" },
	[STATE] = { "STATE", COLUMN_TEXT, false,
	            "attached; watched or reconnecting, where nbd-attach keeps\n"
	            "it; foreign, where another program attached it" },
	[REASON] = { "REASON", COLUMN_TEXT, true, "of the state, a sentence" },
	[BACKEND] = { "BACKEND", COLUMN_TEXT, true, "what the kernel keeps about it" },
};

static const struct command command = {
	.verb = "attached",
	.arguments = "",
	.about = "List the kernel's nbd devices that are connected to something.\n",
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
};

static void add_identity(struct table *t, const struct nbd_state *state)
{
	struct watch_note note;

	table_set_text(t, STATE, "attached");
	if (*state->identity.name)
		table_set_text(t, NAME, state->identity.name);
	table_set_text(t, URI, state->identity.uri);
	table_set_number(t, CONNECTIONS, state->identity.connections);
	if (!watch_note_read(state->index, &note))
		return;
	table_set_text(t, STATE,
	               note.live < state->identity.connections ? "reconnecting" : "watched");
	table_set_number(t, LIVE, note.live);
	if (*note.sentence)
		table_set_text(t, REASON, note.sentence);
}

static void add_device(struct table *t, const struct nbd_state *state)
{
	char path[32];

	(void) snprintf(path, sizeof path, "/dev/nbd%d", state->index);
	table_row(t);
	table_set_text(t, DEVICE, path);
	table_set_number(t, SIZE, state->size);
	table_set_text(t, MODE, state->read_only ? "ro" : "rw");
	if (*state->backend)
		table_set_text(t, BACKEND, state->backend);
	if (state->ours)
		add_identity(t, state);
	else
		table_set_text(t, STATE, "foreign");
}

static int attached(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	AUTO_FREE struct nbd_state *list = NULL;
	struct table *t;
	size_t n;
	int r = nbd_state_list(SYS_BLOCK, &list, &n, why);

	if (r == 0)
		r = table_new("devices", columns, ARRAY_LEN(columns), &o->table, &t, why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		add_device(t, &list[i]);
	r = table_print(t, why);
	table_free(t);
	return r;
}

int verb_attached(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, attached);
}
