/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/group-file.h"
#include "check.h"
#include "scratch.h"

TEST(nothing_is_decided_until_the_word_is_there_or_the_lock_is_gone)
{
	struct scratch scratch = scratch_start();
	struct group group;
	struct failure why = { 0 };
	char folder[128];

	(void) snprintf(folder, sizeof folder, "%s/a/b", scratch.dir);
	CHECK(setenv("NBD_EXPORT_GROUPS", folder, 1) == 0);
	CHECK_EQ("no folder", group_look("0123456789abcdef0123456789abcdef"), GROUP_UNSEEN);
	CHECK_EQ("begin", group_begin(&group, &why), 0);
	CHECK_EQ("no such group", group_look("0123456789abcdef0123456789abcdef"), GROUP_ABORTED);
	CHECK_EQ("undecided", group_look(group.id), GROUP_UNDECIDED);
	CHECK_EQ("commit", group_commit(&group, &why), 0);
	CHECK_EQ("while it is held", group_look(group.id), GROUP_COMMITTED);
	group_end(&group, false);
	CHECK_EQ("afterwards", group_look(group.id), GROUP_COMMITTED);
	scratch_end(&scratch);
}

/* They have no medium, and may not be read past the page cache. */
TEST(a_file_system_in_memory_is_believed)
{
	char folder[] = "/dev/shm/test-XXXXXX";
	struct group group;
	struct failure why = { 0 };

	CHECK(mkdtemp(folder) && setenv("NBD_EXPORT_GROUPS", folder, 1) == 0);
	CHECK_EQ("begin", group_begin(&group, &why), 0);
	CHECK_EQ("undecided", group_look(group.id), GROUP_UNDECIDED);
	CHECK_EQ("commit", group_commit(&group, &why), 0);
	CHECK_EQ("committed", group_look(group.id), GROUP_COMMITTED);
	group_end(&group, true);
	CHECK(rmdir(folder) == 0);
}

TEST(who_dies_before_it_decides_has_given_up_and_leaves_nothing)
{
	struct scratch scratch = scratch_start();
	struct group group, next;
	struct failure why = { 0 };

	CHECK(setenv("NBD_EXPORT_GROUPS", scratch.dir, 1) == 0);
	CHECK_EQ("begin", group_begin(&group, &why), 0);
	group_end(&group, false);
	CHECK_EQ("given up", group_look(group.id), GROUP_ABORTED);
	CHECK_EQ("the next", group_begin(&next, &why), 0);
	CHECK(access(group.path, F_OK) < 0);
	CHECK_EQ("gone", group_look(group.id), GROUP_ABORTED);
	group_end(&next, true);
	CHECK(access(next.path, F_OK) < 0);
	scratch_end(&scratch);
}

TEST(an_id_leads_nowhere_else)
{
	CHECK(!group_id_check(""));
	CHECK(!group_id_check("../../../../../../../etc/shadow0"));
	CHECK(!group_id_check("0123456789ABCDEF0123456789abcdef"));
	CHECK(group_id_check("0123456789abcdef0123456789abcdef"));
}
