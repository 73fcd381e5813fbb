/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Word of entries that were lost comes soon after the log is read again, also from a process that
 * has nothing else to say.
 */
#pragma once

#include <systemd/sd-event.h>

/* Until the loop ends.  0, or a negative errno. */
int log_attach(sd_event *event);
