/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/verb-group.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ctl/verbs.h"

static int print_help(const struct verb_group *group)
{
	(void) printf("Usage: nbdctl %s VERB [ARGUMENT...]\n\n%s\n", group->name, group->about);
	for (size_t i = 0; i < group->n; i++)
		(void) printf("  %s %-*s %s\n", group->name, (int) (18 - strlen(group->name)),
		              group->verbs[i].name, group->verbs[i].help);
	(void) printf("\n`nbdctl %s VERB --help` tells all about one of them.\n", group->name);
	return 0;
}

int verb_group_run(const struct verb_group *group, int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word) {
		log_error("%s: what? (nbdctl %s --help lists it)", group->name, group->name);
		return EXIT_USAGE;
	}
	if (strcmp(word, "--help") == 0 || strcmp(word, "help") == 0)
		return print_help(group);
	for (size_t i = 0; i < group->n; i++)
		if (strcmp(word, group->verbs[i].name) == 0)
			return group->verbs[i].run(argc - 1, argv + 1);
	log_error("there is no \"%s %s\" (nbdctl %s --help lists what there is)", group->name, word,
	          group->name);
	return EXIT_USAGE;
}
