/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a client's socket is set to, for the handshake and for its time at the export. */
#pragma once

#include <stdbool.h>

/* Whether the kernel lets us have large buffers.  Where it does not, asking would only fix
 * TCP's buffers at a small size that would otherwise adapt. */
bool client_socket_big_buffers(void);

void client_socket_prepare(int fd, bool big_buffers);
