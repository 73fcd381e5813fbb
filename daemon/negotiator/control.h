/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The negotiator on its control socket: object /org/nbd_export/negotiator, interface
 * org.nbd_export.Negotiator1.  docs/control.md has its members.
 */
#pragma once

#include "base/control-server.h"
#include "negotiator/server.h"

/* Serves on the listening socket `fd`, which it takes in every case. */
int negotiator_control_serve(struct server *server, int fd, struct control_server **ret,
                             struct failure *why);
