/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two halves of the null server know of each other. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"

#define NULL_CONTEXT 1u         /* the id of base:allocation */

/* Negotiates with a client on this socket.  False: it left, or made no sense. */
bool null_handshake(int fd, uint64_t size, enum mode *ret_mode);
