/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes of one connection: in clear, or by TLS once stream_start_tls() has come back.
 *
 * TLS reads ahead, so that a record costs less than the two system calls that GnuTLS itself
 * would make; stream_has_more() tells of bytes that no poll(2) would.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct read_ahead;

struct stream {
	int fd;
	gnutls_session_t tls;           /* NULL: in clear */
	struct read_ahead *ahead;       /* with TLS only */
	size_t n_pending;               /* bytes that TLS has taken and not sent */
};

/* Makes the handshake.  `how` is "x509" (the server's certificate is not verified, and none is
 * shown) or "psk:FILE", whose first line is USER:HEX-KEY.  Ends the program on failure. */
void stream_start_tls(struct stream *stream, const char *how);
void stream_close(struct stream *stream);

/* These two wait, and end the program on failure. */
void stream_send_all(struct stream *stream, const void *bytes, size_t n);
void stream_receive_all(struct stream *stream, void *bytes, size_t n);

/* Never waits.  How many bytes of the batch are taken, or -errno; after -EAGAIN the same
 * batch must come again. */
ssize_t stream_send(struct stream *stream, const struct iovec *iov, unsigned n_iov);

/* Up to `size` bytes, at least one unless it is the end (0) or -errno.  Waits unless told. */
ssize_t stream_receive(struct stream *stream, void *bytes, size_t size, bool dontwait);

/* Whether there may be bytes here that the kernel does not have any more. */
bool stream_has_more(const struct stream *stream);
