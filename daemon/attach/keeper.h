/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps one device attached: attaches it, or takes over one that is attached already, makes new
 * connections for those that the kernel says are dead, and detaches it in the end.
 *
 * The kernel holds the connections, so the device outlives a keeper that is killed, and the next
 * one takes it over.
 */
#pragma once

#include <systemd/sd-event.h>

#include "attach/attach.h"

struct keeper;

/* `cancel_fd` is readable from when it should end; it and `wishes` are borrowed. */
int keeper_new(sd_event *event, const struct attach_wishes *wishes, int cancel_fd,
               struct keeper **ret, struct failure *why);
void keeper_free(struct keeper *k);

/* Until the device is there, however often the server has to be asked; -ECANCELED, or what only a
 * person can mend.  Then it watches, from the event loop, which ends when the device is gone. */
int keeper_attach(struct keeper *k, struct failure *why);

/* Takes the device away; one that is mounted or claimed stays attached, and that is said. */
int keeper_detach(struct keeper *k, struct failure *why);
