/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log-sink.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 100                 /* the watchdog's is 30 s */
#define WITHOUT_END (-1)

static _Thread_local bool may_wait;
static bool waits_without_end;
static atomic_bool stuck;               /* the last wait was in vain */
static atomic_uint lost;

void log_sink_is_main_thread(void)
{
	may_wait = true;
}

void log_sink_waits(void)
{
	waits_without_end = true;
}

unsigned log_sink_take_lost(void)
{
	return atomic_exchange(&lost, 0);
}

void log_sink_give_back_lost(unsigned n)
{
	atomic_fetch_add(&lost, n);
}

bool log_sink_has_lost(void)
{
	return atomic_load(&lost) > 0;
}

static int patience(void)
{
	if (!may_wait)
		return 0;
	if (waits_without_end)
		return WITHOUT_END;
	return atomic_load(&stuck) ? 0 : PATIENCE_MS;
}

static bool takes_more(int fd, int milliseconds)
{
	struct pollfd look = { .fd = fd, .events = POLLOUT };

	/* An error is for the write to find. */
	return poll(&look, 1, milliseconds) != 0;
}

/* One try.  A pipe, a terminal or a file are not told to be quick, but asked before. */
static int write_now(int fd, const char *entry, size_t len)
{
	ssize_t n = send(fd, entry, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno == ENOTSOCK) {
		if (!takes_more(fd, 0))
			return -EAGAIN;
		n = write(fd, entry, len);
	}
	return n < 0 ? -errno : 0;
}

int log_sink_write(int fd, const char *entry, size_t len)
{
	int r = write_now(fd, entry, len);

	if (r == -EAGAIN && patience() != 0) {
		if (takes_more(fd, patience()))
			r = write_now(fd, entry, len);
		if (r == -EAGAIN)
			atomic_store(&stuck, true);
	}
	if (r == 0)
		atomic_store(&stuck, false);
	else if (r == -EAGAIN)
		atomic_fetch_add(&lost, 1);
	return r;
}
