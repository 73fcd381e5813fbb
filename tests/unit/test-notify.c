/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A service manager that does not read holds nobody up, and hears everything in the end. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/notify.h"

/* Its socket, by an abstract name. */
static int manager(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char name[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int len = snprintf(name, sizeof name, "@nbd-test-notify-%ld", (long) getpid());

	memcpy(at.sun_path, name, (size_t) len);
	at.sun_path[0] = '\0';
	CHECK_EQ("", bind(fd, (struct sockaddr *) &at,
	                  (socklen_t) (offsetof(struct sockaddr_un, sun_path) + (size_t) len)), 0);
	CHECK_EQ("", setenv("NOTIFY_SOCKET", name, 1), 0);
	return fd;
}

/* "": there is nothing. */
static const char *heard(int fd)
{
	static char text[2048];
	ssize_t len = recv(fd, text, sizeof text - 1, 0);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

/* As many as it takes; how many. */
static int fill(int fd)
{
	struct sockaddr_un at;
	socklen_t size = sizeof at;
	AUTO_FD out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int n = 0;

	CHECK_EQ("", getsockname(fd, (struct sockaddr *) &at, &size), 0);
	while (sendto(out, "x", 1, 0, (struct sockaddr *) &at, size) == 1)
		n++;
	CHECK_EQ("", errno, EAGAIN);
	return n;
}

static void turn(sd_event *event)
{
	CHECK(sd_event_run(event, 1000 * 1000) >= 0);
}

TEST(without_a_service_manager_nothing_is_sent)
{
	CHECK_EQ("", unsetenv("NOTIFY_SOCKET"), 0);
	notify("READY=1");
}

TEST(what_is_sent_arrives_as_it_is)
{
	AUTO_FD fd = manager();

	notify("READY=1\nSTATUS=%u clients", 3u);
	CHECK_STR("", heard(fd), "READY=1\nSTATUS=3 clients");
	CHECK_STR("", heard(fd), "");
}

TEST(what_is_no_text_is_replaced_for_systemd_drops_the_whole_status_otherwise)
{
	AUTO_FD fd = manager();

	notify("STATUS=cannot read %.4s", "/a\xe2\x82\xac");
	CHECK_STR("", heard(fd), "STATUS=cannot read /a\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(what_it_does_not_take_is_sent_later_in_order_and_of_a_kind_only_the_last)
{
	AUTO_FD fd = manager();
	sd_event *event = NULL;
	int n;

	CHECK(sd_event_new(&event) >= 0);
	notify_attach(event);
	turn(event);                            /* the timer that has nothing to do yet */
	n = fill(fd);
	notify("RELOADING=1\nMONOTONIC_USEC=5");
	notify("STATUS=one");
	notify("STATUS=two");
	notify("READY=1\nSTATUS=three");
	notify("STATUS=four");
	notify("WATCHDOG=1");
	notify("WATCHDOG=1");
	turn(event);                            /* in vain */
	while (n-- > 0)
		CHECK_STR("", heard(fd), "x");
	CHECK_STR("", heard(fd), "");
	notify("STOPPING=1");                   /* not before those that wait */
	turn(event);
	CHECK_STR("", heard(fd), "RELOADING=1\nMONOTONIC_USEC=5");
	CHECK_STR("", heard(fd), "STATUS=two");
	CHECK_STR("", heard(fd), "READY=1\nSTATUS=three");
	CHECK_STR("", heard(fd), "STATUS=four");
	CHECK_STR("", heard(fd), "WATCHDOG=1");
	CHECK_STR("", heard(fd), "STOPPING=1");
	CHECK_STR("", heard(fd), "");
	notify("STATUS=at once again");
	CHECK_STR("", heard(fd), "STATUS=at once again");
	notify_attach(NULL);
	sd_event_unref(event);
}

TEST(the_watchdog_is_fed_by_the_loop)
{
	AUTO_FD fd = manager();
	sd_event *event = NULL;

	CHECK(sd_event_new(&event) >= 0);
	CHECK_EQ("", setenv("WATCHDOG_USEC", "40000", 1), 0);
	CHECK(notify_watchdog(event) >= 0);
	for (int i = 0; i < 3; i++) {
		turn(event);
		CHECK_STR("", heard(fd), "WATCHDOG=1");
	}
	CHECK_EQ("", notify_watchdog(NULL), 0);
	CHECK_EQ("", unsetenv("WATCHDOG_USEC"), 0);
	CHECK_EQ("none is wanted", notify_watchdog(event), 0);
	CHECK_EQ("", sd_event_run(event, 0), 0);
	CHECK_STR("", heard(fd), "");
	sd_event_unref(event);
}
