/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a program starts that a service manager runs: sockets that are passed to it
 * (sd_listen_fds(3)), its event loop with what each one needs, signals.
 */
#pragma once

#include <systemd/sd-event.h>

#include "base/failure.h"

/* Closes everything that was inherited beyond what LISTEN_FDS counts.  Before the log opens its
 * socket. */
void service_close_inherited(void);

/* Standard input and output become /dev/null; errors stay where they go. */
int service_take_null(struct failure *why);

/* A descriptor that was passed; `what` names it in the sentence. */
int service_make_nonblocking(int fd, const char *what, struct failure *why);

/* As many descriptors as the hard limit lets us have; that number. */
unsigned service_raise_descriptors(void);

/* A loop that sends what the service manager did not take at once, and tells of lost entries of the
 * log.  For service_end_event(), which takes NULL too; untouched on failure. */
int service_new_event(sd_event **ret, struct failure *why);
void service_end_event(sd_event *event);

/* Feeds the watchdog as long as the loop turns: for who has nothing better to tell by. */
int service_feed_watchdog(sd_event *event, struct failure *why);

/* SIGTERM and SIGINT, SIGHUP; blocked in all threads that are started later.  SIGPIPE is ignored. */
int service_watch_signals(sd_event *event, sd_event_signal_handler_t on_stop,
                          sd_event_signal_handler_t on_hangup, void *userdata, struct failure *why);

/* Any of these signals, or `seconds`, whatever comes first. */
void service_wait_for_signal(unsigned seconds);
