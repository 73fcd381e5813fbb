/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is connected, and whether anybody may join them, as the main thread knows it.
 */
#include <poll.h>

#include "export/admit.h"

void admit_close(struct admission *a, enum reason reason, const char *sentence)
{
	a->closed = reason;
	a->closed_sentence = sentence;
}

void admit_open(struct admission *a)
{
	a->closed = REASON_NONE;
	a->full = false;
}

struct admitted *admit_find(const struct admission *a, uint64_t connection)
{
	struct admitted *who = a->admitted;

	while (who && who->connection != connection)
		who = who->next;
	return who;
}

unsigned admit_count(const struct admission *a)
{
	unsigned n = 0;

	for (const struct admitted *who = a->admitted; who; who = who->next)
		n++;
	return n;
}

struct conn_stats admit_totals(const struct admission *a)
{
	struct conn_stats all = a->gone;

	for (const struct admitted *who = a->admitted; who; who = who->next)
		stats_add(&all, &who->seen.stats);
	return all;
}

void admit_hang_up(struct admission *a)
{
	a->source = sd_event_source_disable_unref(a->source);
	while (a->links)
		link_close(a->links, NULL);
}

static bool is_readable(int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };

	return poll(&readable, 1, 0) > 0;
}

bool admit_is_asked(const struct admission *a)
{
	if (is_readable(a->listener))
		return true;
	for (const struct link *link = a->links; link; link = link->next)
		if (is_readable(link->fd))
			return true;
	return false;
}
