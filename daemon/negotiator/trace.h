/* SPDX-License-Identifier: GPL-2.0-or-later */
/* At debug level: each option and each reply, by the names that the specification gives them.
 * An error reply is told by whoever refuses, with its sentence. */
#pragma once

#include "negotiator/client.h"

/* An option's header has come. */
void trace_option(const struct client *client, const struct option_header *header);

/* The replies in the outbox, from `start` bytes on. */
void trace_replies(const struct client *client, size_t start);
