/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's words about devices: what they say, and what is none. */
#include "check.h"

#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "netlink/uevent.h"

#define TEXT(text) bytes_over(text, sizeof text)        /* its last NUL, too */

#define HEAD "change@/devices/virtual/block/loop1\0"
#define SAME "ACTION=change\0DEVPATH=/devices/virtual/block/loop1\0"
#define BLOCK "SUBSYSTEM=block\0"
#define NUMBERS "MAJOR=7\0MINOR=1"
#define GROWN HEAD SAME BLOCK "RESIZE=1\0MAJOR=7\0MINOR=1\0DEVNAME=loop1\0DEVTYPE=disk\0" \
	      "DISKSEQ=12\0SEQNUM=823"

TEST(an_event_says_what_happened_to_which_device)
{
	struct uevent event;

	CHECK(uevent_decode(TEXT(GROWN), &event));
	CHECK_STR("", event.action, "change");
	CHECK(event.is_block);
	CHECK_EQ("", event.device, makedev(7, 1));
	CHECK(uevent_decode(TEXT("remove@/d\0" "SEQNUM=1\0MINOR=1048575\0MAJOR=4095\0SUBSYSTEM=block\0"
	                         "DEVPATH=/d\0ACTION=remove"), &event));
	CHECK_STR("", event.action, "remove");
	CHECK_EQ("", event.device, makedev(4095, 1048575));
}

TEST(events_of_what_is_no_block_device_need_no_numbers_and_have_none)
{
	struct uevent event;

	CHECK(uevent_decode(TEXT(HEAD SAME "SUBSYSTEM=net\0INTERFACE=lo"), &event));
	CHECK(!event.is_block);
	CHECK(uevent_decode(TEXT(HEAD SAME "SUBSYSTEM=tty\0" NUMBERS), &event));
	CHECK(!event.is_block && event.device == 0);
	CHECK(uevent_decode(TEXT(HEAD SAME "SUBSYSTEM=tty\0MAJOR=\xff\0MINOR=x"), &event));
	CHECK(uevent_decode(TEXT(HEAD SAME "SEQNUM=1"), &event));
	CHECK(!event.is_block);
}

/* Bytes of any value may be in what does not matter. */
TEST(what_is_not_looked_for_may_be_anything)
{
	struct uevent event;

	CHECK(uevent_decode(TEXT(HEAD SAME BLOCK "A=\x01\xff\xfe=@\0B=\0" NUMBERS), &event));
	CHECK_EQ("", event.device, makedev(7, 1));
}

#define REFUSED(text) { #text, TEXT(text) }

TEST(garbled_text_is_no_event)
{
	static char long_action[] = "abcdefghijklmnop@/d\0ACTION=abcdefghijklmnop\0DEVPATH=/d";
	const struct {
		const char *what;
		struct bytes text;
	} rows[] = {
		REFUSED(""),
		REFUSED("\0"),
		REFUSED("@/d\0ACTION=\0DEVPATH=/d"),
		REFUSED("change"),
		REFUSED("libudev\0\xfe\xed\xca\xfe"),
		REFUSED("change@\0ACTION=change\0DEVPATH="),
		REFUSED("change@d\0ACTION=change\0DEVPATH=d"),
		REFUSED(HEAD BLOCK NUMBERS),                            /* without the two */
		REFUSED(HEAD "ACTION=add\0DEVPATH=/devices/virtual/block/loop1\0" BLOCK NUMBERS),
		REFUSED(HEAD "ACTION=change\0DEVPATH=/devices/virtual/block/loop11\0" BLOCK NUMBERS),
		REFUSED(HEAD SAME BLOCK "MAJOR=7"),
		REFUSED(HEAD SAME BLOCK "MINOR=1"),
		REFUSED(HEAD SAME BLOCK NUMBERS "\0MINOR=2"),           /* which of the two? */
		REFUSED(HEAD SAME BLOCK BLOCK NUMBERS),
		REFUSED(HEAD SAME BLOCK "MAJOR=\0MINOR=1"),
		REFUSED(HEAD SAME BLOCK "MAJOR=-7\0MINOR=1"),
		REFUSED(HEAD SAME BLOCK "MAJOR= 7\0MINOR=1"),
		REFUSED(HEAD SAME BLOCK "MAJOR=0x7\0MINOR=1"),
		REFUSED(HEAD SAME BLOCK "MAJOR=7\0MINOR=4294967296"),
		REFUSED(HEAD SAME BLOCK "MAJOR=7\0MINOR=18446744073709551617"),
		REFUSED(HEAD SAME BLOCK "MAJOR=7\0MINOR=00000000001"),
		REFUSED(HEAD SAME BLOCK NUMBERS "\0nothing"),
		REFUSED(HEAD SAME BLOCK NUMBERS "\0=nothing"),
		REFUSED(HEAD SAME BLOCK NUMBERS "\0"),                  /* an empty string */
		{ "a long action", bytes_over(long_action, sizeof long_action) },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct uevent event = { .action = "kept" };

		CHECK_EQ(rows[i].what, uevent_decode(rows[i].text, &event), false);
		CHECK_STR(rows[i].what, event.action, "kept");
	}
}

TEST(every_truncation_is_refused_but_between_fields_of_no_matter)
{
	static const char whole[] = GROWN;
	const size_t enough = sizeof HEAD SAME BLOCK "RESIZE=1\0MAJOR=7\0MINOR=1";
	const size_t of_no_block_device = sizeof HEAD SAME - 1;

	for (size_t len = 0; len < sizeof whole; len++) {
		char copy[sizeof whole];
		struct uevent event;
		bool good;

		memcpy(copy, whole, len);       /* so that a sanitizer sees a look behind it */
		good = (len >= enough && copy[len - 1] == '\0') || len == of_no_block_device;
		CHECK_EQ("length", uevent_decode(bytes_over(copy, len), &event), good);
	}
}

/* A message has room for thousands of these: they are not gone through. */
TEST(more_fields_than_the_kernel_can_send_are_refused)
{
	static char text[UEVENT_MAX] = HEAD SAME BLOCK NUMBERS;
	size_t len = sizeof HEAD SAME BLOCK NUMBERS;
	struct uevent event;

	for (unsigned n = 5; n < 128; n++, len += 4) {
		CHECK_EQ("fields", uevent_decode(bytes_over(text, len), &event), true);
		memcpy(text + len, "A=1", 4);
	}
	CHECK(uevent_decode(bytes_over(text, len), &event));
	memcpy(text + len, "A=1", 4);
	CHECK(!uevent_decode(bytes_over(text, len + 4), &event));
}

TEST(the_kernel_alone_is_believed)
{
	const struct ucred kernel = { 0 }, root = { .pid = 1 }, other = { .uid = 1000 };
	const struct sockaddr_nl from = { .nl_groups = 1 }, program = { .nl_groups = 1, .nl_pid = 4711 };
	const struct sockaddr_nl udev = { .nl_groups = 2 }, alone = { 0 };

	CHECK(uevent_is_from_kernel(&from, &kernel));
	CHECK(!uevent_is_from_kernel(&program, &kernel));
	CHECK(!uevent_is_from_kernel(&udev, &kernel));
	CHECK(!uevent_is_from_kernel(&alone, &kernel));
	CHECK(!uevent_is_from_kernel(&from, &root));
	CHECK(!uevent_is_from_kernel(&from, &other));
	CHECK(!uevent_is_from_kernel(&from, NULL));
}
