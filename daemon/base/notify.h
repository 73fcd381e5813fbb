/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sd_notify(3) for what may be lost: it never waits, however busy the service manager is.
 */
#pragma once

#include "base/attr.h"

/* Sends to NOTIFY_SOCKET.  0 also when there is none; -EAGAIN when its queue is full. */
int notify_without_waiting(const char *fmt, ...) PRINTF(1, 2);
