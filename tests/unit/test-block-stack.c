/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which device is made of which, in a sysfs of our own:
 *
 *   sda (8:0) ── sda1 (8:1), sda2 (8:2)
 *   dm-0 (253:0) on sda2; dm-1 (253:1) on dm-0 and sdb (8:16)
 *   loop0 (7:0) of a file, with loop0p1 (259:0)
 *   md0 (9:0), which sysfs says is made of itself
 */
#include "check.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "export/block-stack.h"
#include "scratch.h"

#define SDA makedev(8, 0)
#define SDA1 makedev(8, 1)
#define SDA2 makedev(8, 2)
#define SDB makedev(8, 16)
#define DM0 makedev(253, 0)
#define DM1 makedev(253, 1)
#define LOOP0 makedev(7, 0)
#define LOOP0P1 makedev(259, 0)
#define MD0 makedev(9, 0)

static void folder(struct scratch *s, const char *name)
{
	CHECK_EQ(name, mkdir(scratch_path(s, name), 0700), 0);
}

static void text(struct scratch *s, const char *name, const char *what)
{
	(void) scratch_write(s, name, what, strlen(what));
}

static void node(struct scratch *s, const char *path, const char *number)
{
	char name[100], target[100];

	folder(s, path);
	(void) snprintf(name, sizeof name, "%s/dev", path);
	text(s, name, number);
	(void) snprintf(name, sizeof name, "%s/slaves", path);
	folder(s, name);
	(void) snprintf(name, sizeof name, "dev/block/%.*s", (int) strcspn(number, "\n"), number);
	(void) snprintf(target, sizeof target, "../../%s", path);
	CHECK_EQ(name, symlink(target, scratch_path(s, name)), 0);
}

static void slave(struct scratch *s, const char *of, const char *name, const char *target)
{
	char path[100];

	(void) snprintf(path, sizeof path, "%s/slaves/%s", of, name);
	CHECK_EQ(path, symlink(target, scratch_path(s, path)), 0);
}

static struct scratch make_sys(void)
{
	struct scratch s = scratch_start();
	char path[128];

	folder(&s, "dev");
	folder(&s, "dev/block");
	node(&s, "sda", "8:0\n");
	node(&s, "sda/sda1", "8:1\n");
	text(&s, "sda/sda1/partition", "1\n");
	node(&s, "sda/sda2", "8:2\n");
	text(&s, "sda/sda2/partition", "2\n");
	node(&s, "sdb", "8:16\n");
	node(&s, "dm-0", "253:0\n");
	slave(&s, "dm-0", "sda2", "../../sda/sda2");
	node(&s, "dm-1", "253:1\n");
	slave(&s, "dm-1", "dm-0", "../../dm-0");
	slave(&s, "dm-1", "sdb", "../../sdb");
	node(&s, "loop0", "7:0\n");
	folder(&s, "loop0/loop");
	text(&s, "image", "");
	(void) snprintf(path, sizeof path, "%s/image\n", s.dir);
	text(&s, "loop0/loop/backing_file", path);
	node(&s, "loop0/loop0p1", "259:0\n");
	text(&s, "loop0/loop0p1/partition", "1\n");
	node(&s, "md0", "9:0\n");
	slave(&s, "md0", "md0", "../../md0");
	return s;
}

static bool reaches(const struct scratch *s, dev_t top, dev_t wanted)
{
	const struct block_stack what = { .sys = s->dir, .device = wanted, .through_files = true };

	return block_stack_reaches(&what, top);
}

TEST(a_device_is_made_of_itself_and_of_all_below_it)
{
	struct scratch s = make_sys();

	CHECK(reaches(&s, SDA, SDA));
	CHECK(reaches(&s, SDA1, SDA));
	CHECK(reaches(&s, DM0, SDA2) && reaches(&s, DM0, SDA));
	CHECK(reaches(&s, DM1, SDA) && reaches(&s, DM1, SDB) && reaches(&s, DM1, DM0));
	scratch_end(&s);
}

TEST(neighbours_and_what_is_above_are_something_else)
{
	struct scratch s = make_sys();

	CHECK(!reaches(&s, SDA, SDA1));
	CHECK(!reaches(&s, SDA1, SDA2));
	CHECK(!reaches(&s, DM0, SDA1) && !reaches(&s, DM0, SDB) && !reaches(&s, DM0, DM1));
	CHECK(!reaches(&s, makedev(1, 1), SDA));
	CHECK(!reaches(&s, MD0, SDA));          /* and comes to an end */
	scratch_end(&s);
}

TEST(a_loop_is_made_of_its_file_and_of_what_that_lies_on)
{
	struct scratch s = make_sys();
	struct block_stack what = { .sys = s.dir };
	struct stat image, other;

	CHECK_EQ("", stat(scratch_path(&s, "image"), &image), 0);
	CHECK_EQ("", stat(scratch_path(&s, "sda/dev"), &other), 0);
	what.file = &image;
	CHECK(block_stack_reaches(&what, LOOP0) && block_stack_reaches(&what, LOOP0P1));
	CHECK(!block_stack_reaches(&what, SDA));
	what.file = &other;
	CHECK(!block_stack_reaches(&what, LOOP0P1));
	CHECK(reaches(&s, LOOP0P1, image.st_dev));
	what = (struct block_stack) { .sys = s.dir, .device = image.st_dev };
	CHECK(!block_stack_reaches(&what, LOOP0P1));
	scratch_end(&s);
}
