/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets to listen on: addresses as people write them, and the ones that a
 * service manager passes (LISTEN_FDS, sd_listen_fds(3)).
 */
#pragma once

#include "base/failure.h"

/*
 * A stream socket that listens on "127.0.0.1:10809", "[::1]:10809", "localhost:10809"
 * or "*:10809" (every address, IPv4 and IPv6).  Port 0 takes a free one.
 * "[::]:10809" is IPv6 alone, so that "0.0.0.0:10809" can be had beside it.
 * The descriptor is the caller's, non-blocking and close-on-exec.
 */
int listen_tcp(const char *address, int *ret_fd, struct failure *why);

/*
 * A unix socket that listens at `path`; `type` is SOCK_STREAM or SOCK_SEQPACKET.  A
 * stale socket at that path, one that nobody listens on, is replaced; one in use, and
 * any other kind of file, is an error.  Mode 0600 unless umask is stricter.
 */
int listen_unix(const char *path, int type, int *ret_fd, struct failure *why);

/* "nbd://127.0.0.1:10809" or "nbd+unix:///?socket=/path" for a listening socket. */
int listen_uri(int fd, char *ret, size_t size);
