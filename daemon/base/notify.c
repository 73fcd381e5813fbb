/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/text.h"

#define TEXT_MAX 1024u
#define WAITING_MAX 16u
#define AGAIN_USEC (USEC_PER_SEC / 10)

/* What waits, oldest first.  A process has one service manager and one main thread. */
static char waiting[WAITING_MAX][TEXT_MAX];
static unsigned n_waiting;
static sd_event_source *retry;

/* A path, or a name that begins with "@"; other kinds are for virtual machines. */
static int send_to(const char *where, const char *text)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	AUTO_FD fd = -1;
	size_t len = strlen(where);

	if (len < 2 || len >= sizeof at.sun_path || (where[0] != '/' && where[0] != '@'))
		return -EINVAL;
	memcpy(at.sun_path, where, len);
	if (where[0] == '@')
		at.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *) &at,
	                     (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		return -errno;
	return 0;
}

/* False while the service manager takes no more. */
static bool try_to_send(const char *text)
{
	const char *where = getenv("NOTIFY_SOCKET");

	return !where || send_to(where, text) != -EAGAIN;
}

/* Whether it is of one line, and of the same kind as the other: it stands in for it. */
static bool replaces(const char *text, const char *older)
{
	static const char *const kinds[] = { "STATUS=", "WATCHDOG=", "EXTEND_TIMEOUT_USEC=" };

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t len = strlen(kinds[i]);

		if (strncmp(text, kinds[i], len) == 0 && strncmp(older, kinds[i], len) == 0)
			return !strchr(text, '\n') && !strchr(older, '\n');
	}
	return false;
}

static void keep(const char *text)
{
	char *last = n_waiting ? waiting[n_waiting - 1] : NULL;

	if (!last || !replaces(text, last)) {
		if (n_waiting == WAITING_MAX) {         /* hours of silence: the oldest matters least */
			memmove(waiting[0], waiting[1], sizeof waiting - sizeof *waiting);
			n_waiting--;
		}
		last = waiting[n_waiting++];
	}
	(void) snprintf(last, TEXT_MAX, "%s", text);
	if (retry) {
		(void) sd_event_source_set_time_relative(retry, AGAIN_USEC);
		(void) sd_event_source_set_enabled(retry, SD_EVENT_ONESHOT);
	}
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	unsigned n = 0;

	(void) usec, (void) userdata;
	while (n < n_waiting && try_to_send(waiting[n]))
		n++;
	n_waiting -= n;
	memmove(waiting[0], waiting[n], n_waiting * sizeof *waiting);
	if (n_waiting == 0)
		return 0;
	(void) sd_event_source_set_time_relative(source, AGAIN_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void notify_attach(sd_event *event)
{
	retry = sd_event_source_disable_unref(retry);
	if (event && sd_event_add_time_relative(event, &retry, CLOCK_MONOTONIC, 0, 0, on_retry,
	                                        NULL) < 0)
		retry = NULL;
}

static int on_feed(sd_event_source *source, uint64_t usec, void *userdata)
{
	const uint64_t *every = userdata;

	notify("WATCHDOG=1");
	(void) sd_event_source_set_time(source, usec + *every);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int notify_watchdog(sd_event *event)
{
	static sd_event_source *feed;
	static uint64_t every;

	feed = sd_event_source_disable_unref(feed);
	if (!event || sd_watchdog_enabled(0, &every) <= 0)
		return 0;
	every /= 4;
	return sd_event_add_time_relative(event, &feed, CLOCK_MONOTONIC, 0, 0, on_feed, &every);
}

void notify(const char *fmt, ...)
{
	char raw[TEXT_MAX], text[TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	(void) vsnprintf(raw, sizeof raw, fmt, args);
	va_end(args);
	make_utf8(raw, text, sizeof text);      /* systemd drops a status that is not */
	if (n_waiting > 0 || !try_to_send(text))
		keep(text);
}
