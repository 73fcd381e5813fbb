/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The private folder of one `nbdctl serve`, mode 0700:
 *
 *   exports/LABEL.conf    what the children read
 *   LABEL.channel         the channel's sockets
 *   instances/LABEL/      the export's control socket
 *   negotiator/           the negotiator's
 *   notify                where children report READY=1
 *   tls                   nbd-tls's channel, with --tls
 *   nbd                   the client socket, when no other was asked for
 *
 * It lies in $XDG_RUNTIME_DIR, /run or /tmp, the first that we may write to and whose name is
 * short enough for a socket's path.
 */
#pragma once

#include <stddef.h>

#include "base/export-settings.h"
#include "base/failure.h"

struct runtime {
	char *folder;
	char *exports;          /* FOLDER/exports */
	char *notify;           /* FOLDER/notify */
	char *socket;           /* FOLDER/nbd */
	char *tls;              /* FOLDER/tls */
};

/* `longest_label`: in bytes.  On failure nothing is left behind. */
int runtime_make(size_t longest_label, struct runtime *ret, struct failure *why);

/* Writes the export's file and makes its channel, a socket that listens (the caller's). */
int runtime_add(const struct runtime *rt, const struct export_settings *s, int *ret_channel,
                struct failure *why);

/* Takes both away again, for an export that does not start. */
void runtime_drop(const struct runtime *rt, const char *label);

/* The option that tells an export, or for NULL the negotiator, its control socket: the
 * caller's to free, NULL without memory. */
char *runtime_control(const struct runtime *rt, const char *label);

/* Removes the folder and all in it.  A null runtime is fine. */
void runtime_remove(struct runtime *rt);
