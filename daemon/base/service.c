/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/log-attach.h"
#include "base/notify.h"

#define LEAST_DESCRIPTORS 1024u         /* where the limit cannot be read */

void service_close_inherited(void)
{
	int n = sd_listen_fds(0);

	if (n >= 0)
		(void) close_range((unsigned) (SD_LISTEN_FDS_START + n), UINT_MAX, 0);
}

int service_take_null(struct failure *why)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return fail(why, errno, "cannot open /dev/null");
	if (null > STDERR_FILENO)
		close_fd(&null);
	return 0;
}

int service_make_nonblocking(int fd, const char *what, struct failure *why)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail(why, errno, "cannot make %s non-blocking", what);
	return 0;
}

unsigned service_raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return LEAST_DESCRIPTORS;
	limit.rlim_cur = limit.rlim_max;
	(void) setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur < INT_MAX ? (unsigned) limit.rlim_cur : INT_MAX;
}

int service_new_event(sd_event **ret, struct failure *why)
{
	sd_event *event = NULL;
	int r = sd_event_new(&event);

	if (r >= 0)
		r = log_attach(event);
	if (r < 0) {
		sd_event_unref(event);
		return fail(why, -r, "cannot create the event loop");
	}
	notify_attach(event);
	*ret = event;
	return 0;
}

void service_end_event(sd_event *event)
{
	notify_attach(NULL);
	(void) notify_watchdog(NULL);
	sd_event_unref(event);
}

int service_feed_watchdog(sd_event *event, struct failure *why)
{
	int r = notify_watchdog(event);

	return r < 0 ? fail(why, -r, "cannot feed the watchdog") : 0;
}

static int block_signals(sigset_t *ret)
{
	(void) sigemptyset(ret);
	(void) sigaddset(ret, SIGTERM);
	(void) sigaddset(ret, SIGINT);
	(void) sigaddset(ret, SIGHUP);
	return sigprocmask(SIG_BLOCK, ret, NULL) < 0 ? -errno : 0;
}

int service_watch_signals(sd_event *event, sd_event_signal_handler_t on_stop,
                          sd_event_signal_handler_t on_hangup, void *userdata, struct failure *why)
{
	sigset_t set;
	int r = block_signals(&set);

	(void) signal(SIGPIPE, SIG_IGN);
	if (r == 0)
		r = sd_event_add_signal(event, NULL, SIGTERM, on_stop, userdata);
	if (r >= 0)
		r = sd_event_add_signal(event, NULL, SIGINT, on_stop, userdata);
	if (r >= 0)
		r = sd_event_add_signal(event, NULL, SIGHUP, on_hangup, userdata);
	return r < 0 ? fail(why, -r, "cannot watch signals") : 0;
}

void service_wait_for_signal(unsigned seconds)
{
	const struct timespec length = { .tv_sec = seconds };
	sigset_t set;

	if (block_signals(&set) == 0)
		(void) sigtimedwait(&set, NULL, &length);
}
