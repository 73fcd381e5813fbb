/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What several exports agree by: a file for each checkpoint of a group, that says whether it is made.
 *
 * Whoever makes the checkpoint keeps the file locked until it has decided, and alone writes to it.
 * The exports only read: as long as it is locked nothing is decided; a file that is not there, or
 * that nobody holds and that does not say "committed", means that there is no checkpoint.  The word
 * counts once it is on the medium, which is read past the page cache.  So the decision is one
 * write, and all come to the same one, whenever they look and whoever has died.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/failure.h"

#define GROUP_ID_SIZE 33u               /* 32 hexadecimal digits, and the end */

enum group_decision {
	GROUP_UNDECIDED,
	GROUP_UNSEEN,                   /* nobody can tell here and now; as undecided */
	GROUP_COMMITTED,
	GROUP_ABORTED,
};

/*
 * $NBD_EXPORT_GROUPS, or ".groups" beside the exports' state folders: $STATE_DIRECTORY/.. of a
 * unit, else as state_folder() has it.  Likewise -ENAMETOOLONG and -ENOENT.
 */
int group_folder(char ret[static PATH_MAX]);

enum group_decision group_look(const char *id);

/* Whether it may be an id: nothing that leads elsewhere. */
bool group_id_check(const char *id);

/* --- the one who makes it ------------------------------------------------- */

struct group {
	char id[GROUP_ID_SIZE];
	char path[PATH_MAX];
	int fd;
};

/* Makes the file, durably, undecided and locked; removes those that others have left undecided. */
int group_begin(struct group *ret, struct failure *why);

/* From here on it is made.  After a failure, which is not believed at once, it may be or not: each
 * export finds out. */
int group_commit(struct group *group, struct failure *why);

/* Gives it up.  Without group_commit() it is aborted.  `forget`: everybody knows. */
void group_end(struct group *group, bool forget);
