/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sd_notify(3) that never waits, however busy the service manager is, and loses nothing that
 * counts: what its socket does not take now is sent later, in the same order, from the event
 * loop.  Of several STATUS= (or WATCHDOG=, or EXTEND_TIMEOUT_USEC=) that wait one after another
 * only the last is sent.
 */
#pragma once

#include <systemd/sd-event.h>

#include "base/attr.h"

/* From now on what could not be sent is tried again; NULL: no more. */
void notify_attach(sd_event *event);

/* Feeds the watchdog, if there is one, as long as the loop turns; NULL: no more. */
int notify_watchdog(sd_event *event);

/* Lines of "KEY=value", as sd_notify(3) takes them, at most 1 KiB; without NOTIFY_SOCKET nothing. */
void notify(const char *fmt, ...) PRINTF(1, 2);
