/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A verb that has verbs of its own: `nbdctl bitmap add`.
 */
#pragma once

#include <stddef.h>

struct group_verb {
	const char *name;
	const char *help;
	int (*run)(int argc, char **argv);      /* with the arguments from its name on */
};

struct verb_group {
	const char *name;
	const char *about;              /* ends with \n */
	const struct group_verb *verbs;
	size_t n;
};

/* What to exit with. */
int verb_group_run(const struct verb_group *group, int argc, char **argv);
