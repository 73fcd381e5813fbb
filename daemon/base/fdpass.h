/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One record, and at most one descriptor, over a SOCK_SEQPACKET or SOCK_DGRAM socket.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/failure.h"

/*
 * A non-blocking SOCK_SEQPACKET socket, connected to the one that listens at `path`: the caller's.
 * Done at once or not at all: -EAGAIN is a full queue, -ENOENT and -ECONNREFUSED that nobody
 * listens.
 */
int connect_records(const char *path, int *ret_fd);

/*
 * Sends `len` bytes and, unless `fd` is -1, that descriptor (which stays the
 * caller's).  0, or -errno; -EAGAIN when a non-blocking socket is full.
 */
int send_record(int channel, const void *record, size_t len, int fd);

/*
 * Receives one record of at most `size` bytes.  Returns its length, 0 at the end of
 * the channel, or -errno; -EMSGSIZE for a record that is longer or whose descriptors
 * did not fit.  Keeps one descriptor in *ret_fd (the caller's, -1 for none; close on
 * exec) and closes any more, telling in *ret_n_fds how many came.
 */
ssize_t receive_record(int channel, void *ret, size_t size, int *ret_fd, unsigned *ret_n_fds);
