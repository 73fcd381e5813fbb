/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a server that comes back must still have, for a device that the kernel has set up.
 */
#include "check.h"

#include <errno.h>
#include <sys/stat.h>

#include "attach/relied.h"
#include "base/attr.h"
#include "scratch.h"
#include "wire/nbd.h"

#define ALL (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
             NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)
#define SIZE 1048576u

static void write_attribute(struct scratch *s, const char *name, const char *text)
{
	char path[64];

	(void) snprintf(path, sizeof path, "nbd1/%s", name);
	(void) scratch_write(s, path, text, strlen(text));
}

/* nbd1 with blocks of 4 KiB and requests up to 128 KiB. */
static struct scratch a_device(const char *ro)
{
	struct scratch s = scratch_start();

	CHECK_EQ("", mkdir(scratch_path(&s, "nbd1"), 0700), 0);
	CHECK_EQ("", mkdir(scratch_path(&s, "nbd1/queue"), 0700), 0);
	write_attribute(&s, "ro", ro);
	write_attribute(&s, "queue/logical_block_size", "4096\n");
	write_attribute(&s, "queue/max_sectors_kb", "128\n");
	return s;
}

static const struct {
	const char *what;
	struct export_facts now;
	uint32_t connections;
	const char *sentence;           /* NULL: taken */
} cases[] = {
	{ "the same", { .size = SIZE, .flags = ALL }, 2, NULL },
	{ "more", { .size = 2 * SIZE, .flags = ALL | NBD_FLAG_SEND_CACHE }, 2, NULL },
	{ "shrunk", { .size = SIZE - 512, .flags = ALL }, 1, "has shrunk from 1048576 to 1048064" },
	{ "no flush", { .size = SIZE, .flags = ALL & ~NBD_FLAG_SEND_FLUSH }, 1, "flushes no more" },
	{ "no FUA", { .size = SIZE, .flags = ALL & ~NBD_FLAG_SEND_FUA }, 1, "no FUA any more" },
	{ "no trim", { .size = SIZE, .flags = ALL & ~NBD_FLAG_SEND_TRIM }, 1, "trims no more" },
	{ "several", { .size = SIZE, .flags = ALL & ~NBD_FLAG_CAN_MULTI_CONN }, 2, "several conn" },
	{ "but one", { .size = SIZE, .flags = ALL & ~NBD_FLAG_CAN_MULTI_CONN }, 1, NULL },
	{ "read-only", { .size = SIZE, .flags = ALL | NBD_FLAG_READ_ONLY }, 1, "become read-only" },
	{ "all of it", { .size = SIZE, .flags = NBD_FLAG_READ_ONLY }, 1, "become read-only" },
	{ "minimum", { .size = SIZE, .flags = ALL, .minimum = 8192 }, 1, "below 8192 bytes" },
	{ "its blocks", { .size = SIZE, .flags = ALL, .minimum = 4096 }, 1, NULL },
	{ "maximum", { .size = SIZE, .flags = ALL, .maximum = 65536 }, 1, "more than 65536 bytes" },
	{ "its requests", { .size = SIZE, .flags = ALL, .maximum = 131072 }, 1, NULL },
};

TEST(a_server_that_can_less_than_before_is_not_taken)
{
	struct scratch s = a_device("0\n");

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct relied relied = { .size = SIZE, .flags = ALL,
		                               .connections = cases[i].connections };
		struct failure why = { 0 };
		int r = relied_check(&relied, s.dir, 1, &cases[i].now, &why);

		CHECK_EQ(cases[i].what, r < 0, cases[i].sentence != NULL);
		if (cases[i].sentence && !strstr(why.text, cases[i].sentence))
			CHECK_STR(cases[i].what, why.text, cases[i].sentence);
	}
	scratch_end(&s);
}

TEST(a_device_that_cannot_be_written_goes_on_with_an_export_that_cannot)
{
	const struct relied relied = { .size = SIZE, .flags = ALL, .connections = 1 };
	const struct export_facts now = { .size = SIZE, .flags = NBD_FLAG_HAS_FLAGS |
	                                  NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
	                                  NBD_FLAG_READ_ONLY };
	struct scratch s = a_device("1\n");
	struct failure why = { 0 };

	CHECK_EQ(why.text, relied_check(&relied, s.dir, 1, &now, &why), 0);
	scratch_end(&s);
}

TEST(what_a_device_that_was_there_relies_on_is_seen_by_its_queue)
{
	struct scratch s = a_device("0\n");

	CHECK_EQ("nothing", relied_flags_of(s.dir, 1, 1), NBD_FLAG_HAS_FLAGS);
	write_attribute(&s, "queue/write_cache", "write through\n");
	CHECK_EQ("no cache", relied_flags_of(s.dir, 1, 1), NBD_FLAG_HAS_FLAGS);
	write_attribute(&s, "ro", "1\n");
	CHECK_EQ("ro", relied_flags_of(s.dir, 1, 1), NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);
	write_attribute(&s, "ro", "0\n");
	write_attribute(&s, "queue/write_cache", "write back\n");
	write_attribute(&s, "queue/fua", "1\n");
	write_attribute(&s, "queue/discard_max_bytes", "4294966784\n");
	write_attribute(&s, "queue/write_zeroes_max_bytes", "4294966784\n");
	CHECK_EQ("all", relied_flags_of(s.dir, 1, 2), ALL);
	scratch_end(&s);
}
