/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/quiesce.h"

#include <errno.h>
#include <stdio.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "ctl/control.h"
#include "ctl/running.h"

#define FLUSH_PATIENCE 90u      /* seconds for one without clients: it only flushes */
#define NAMED 8u                /* clients in a sentence */

int quiesce_parse_drain(const char *value, void *into, struct failure *why)
{
	struct quiesce_options *o = into;
	int r;

	o->drain = true;
	if (!*value)
		return 0;
	r = setting_u32(value, &o->patience, why);
	if (r == 0 && o->patience == 0)
		r = fail_plain(why, ERANGE, "less than a second (--force does not wait)");
	return r;
}

static int fail_busy(const char *label, const struct running_client *clients, size_t n,
                     struct failure *why)
{
	char names[NAMED * 72];
	size_t at = 0;

	for (size_t i = 0; i < n && i < NAMED && at < sizeof names; i++)
		at += (size_t) snprintf(names + at, sizeof names - at, "%s%.64s", i ? ", " : "",
		                        clients[i].peer ? clients[i].peer : "?");
	return fail_plain(why, EBUSY, "%s has %zu client%s: %.300s%s (--drain lets them finish, "
	                  "--force does not ask)", label, n, n == 1 ? "" : "s", names,
	                  n > NAMED ? ", ..." : "");
}

static int refuse_while_busy(sd_bus *bus, const char *label, struct failure *why)
{
	struct running_client *clients;
	size_t n;
	int r = running_clients(bus, label, &clients, &n, why);

	if (r < 0)
		return r;
	if (n > 0)
		r = fail_busy(label, clients, n, why);
	running_clients_free(clients, n);
	return r;
}

static int resume(sd_bus *bus, const char *label, struct failure *why)
{
	return control_call(bus, CONTROL_EXPORT(label), "Resume", NULL, CONTROL_PATIENCE, NULL,
	                    why);
}

void quiesce_undo(sd_bus *bus, const char *label, struct failure *why)
{
	struct failure cause = { 0 }, before;

	if (resume(bus, label, &cause) == 0)
		return;
	if (!why) {
		log_warning("%s admits nobody, and cannot be resumed: %s", label, cause.text);
		return;
	}
	before = *why;
	(void) fail_plain(why, before.code, "%.300s; and now it admits nobody, since it cannot "
	                  "be resumed: %.200s", before.text, cause.text);
}

static int drain(sd_bus *bus, const char *label, uint32_t seconds, struct failure *why)
{
	uint64_t patience = seconds ? seconds * USEC_PER_SEC : UINT64_MAX;

	return control_call(bus, CONTROL_EXPORT(label), "Drain", NULL, patience, NULL, why);
}

/* -EBUSY when it has clients: nothing has happened then.  An export that was started by an older
 * version cannot tell. */
static int drain_idle(sd_bus *bus, const char *label, struct failure *why)
{
	int r = control_call(bus, CONTROL_EXPORT(label), "DrainIdle", NULL,
	                     FLUSH_PATIENCE * USEC_PER_SEC, NULL, why);

	return r == -EBADR ? drain(bus, label, FLUSH_PATIENCE, why) : r;
}

/* `ours`: nobody had drained it before. */
static int fail_late(sd_bus *bus, const char *label, uint32_t seconds, bool ours,
                     struct failure *why)
{
	struct failure cause = { 0 };

	if (!ours || resume(bus, label, &cause) == 0)
		return fail_plain(why, ETIMEDOUT, "%s is not drained after %u s, and stays as it "
		                  "was", label, seconds);
	return fail_plain(why, ETIMEDOUT, "%s is not drained after %u s, and goes on draining, "
	                  "since it cannot be resumed: %s", label, seconds, cause.text);
}

static int drain_clients(const struct quiesce_options *o, sd_bus *bus, const char *label,
                         bool ours, struct failure *why)
{
	struct failure cause = { 0 };
	int r = drain(bus, label, o->patience, &cause);

	if (r < 0 && o->force) {
		log_notice("%s; going on, since it is forced", cause.text);
		return 0;
	}
	if (r == -ETIMEDOUT)
		return fail_late(bus, label, o->patience, ours, why);
	if (r < 0)
		*why = cause;
	if (r < 0 && ours)
		quiesce_undo(bus, label, why);
	return r;
}

/* Whoever comes from now on is told why not, instead of being cut off.  What else is wrong with
 * it keeps nobody from stopping it. */
static int close_door(sd_bus *bus, const char *label, bool ours, struct failure *why)
{
	struct failure cause = { 0 };
	int r = drain_idle(bus, label, &cause);

	if (r == -EBUSY) {                      /* somebody has just come in, or is about to */
		r = refuse_while_busy(bus, label, why);
		return r < 0 ? r : fail_plain(why, EBUSY, "%s", cause.text);
	}
	if (r == -ETIMEDOUT)
		return fail_late(bus, label, FLUSH_PATIENCE, ours, why);
	if (r < 0)
		log_warning("%s: %s", label, cause.text);
	return 0;
}

int quiesce(const struct quiesce_options *o, sd_bus *bus, const char *label, bool stops,
            bool *ret_drained, struct failure *why)
{
	bool ours;
	int r = 0;

	*ret_drained = false;
	if (!o->drain && !o->force)
		r = refuse_while_busy(bus, label, why);
	if (r < 0 || (!o->drain && (o->force || !stops)))
		return r;
	ours = running_serves(bus, label);
	r = o->drain ? drain_clients(o, bus, label, ours, why) : close_door(bus, label, ours, why);
	*ret_drained = r == 0 && ours;
	return r;
}
