/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A conversation with nbd-tls on its channel: one CONNECT, one answer.  The session does not need
 * the channel that it was made on.
 */
#include "attach/tls.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "attach/stream.h"
#include "base/attr.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "base/paths.h"
#include "base/text.h"
#include "wire/tls-channel.h"

#define REQUEST 1u

static int open_channel(int *ret, struct failure *why)
{
	const char *path = secure_getenv("NBD_EXPORT_TLS_CHANNEL");
	int r;

	if (!path)
		path = TLS_CHANNEL;
	r = connect_records(path, ret);
	return r == 0 ? 0 : fail_plain(why, -r, "nbd-tls does not answer at %.120s: %s (systemctl "
	                               "start nbd-tls.socket)", path, strerror(-r));
}

static int ask(int channel, int fd, const char *host, const struct client_limits *limits,
               struct failure *why)
{
	uint64_t now = monotonic_us();
	uint64_t left = limits->deadline > now ? (limits->deadline - now) / 1000 + 1 : 1;
	struct tls_record record = { .type = TLS_CONNECT, .connect = {
		.request = REQUEST,
		.deadline = left < TLS_DEADLINE_MAX ? (uint32_t) left : TLS_DEADLINE_MAX,
		.host = span_of(host),
	} };
	uint8_t buffer[TLS_RECORD_MAX];
	struct emit out = emit_into(buffer, sizeof buffer);
	char peer[PEER_TEXT_SIZE];
	int r;

	format_peer(fd, peer, sizeof peer);
	record.connect.peer = span_of(peer);
	emit_tls_record(&out, &record);
	while ((r = send_record(channel, buffer, out.len, fd)) == -EAGAIN) {
		r = stream_wait(channel, POLLOUT, limits, why);
		if (r < 0)
			return r;
	}
	return r < 0 ? fail(why, -r, "cannot ask nbd-tls") : 0;
}

/* 1 with the plain end, 0 for a record that is no answer. */
static int take_record(struct bytes in, int *plain, unsigned n_fds, struct failure *why)
{
	struct tls_record record;
	const char *fault = decode_tls_record(in, &record);
	char said[FAILURE_TEXT_SIZE - 100];

	if (fault || n_fds != tls_record_carries_fd(record.type) ||
	    tls_record_is_negotiators(record.type))
		return fail_plain(why, EPROTO, "nbd-tls breaks the protocol of its channel: %s",
		                  fault ? fault : "a record that does not belong there");
	if (record.type == TLS_FAILED && record.failed.request == REQUEST) {
		printable(record.failed.sentence, sizeof said - 4, said, sizeof said);
		return fail_plain(why, EPROTO, "TLS: %s", said);
	}
	return record.type == TLS_ESTABLISHED && *plain >= 0;
}

static int await_answer(int channel, const struct client_limits *limits, int *ret_fd,
                        struct failure *why)
{
	uint8_t buffer[TLS_RECORD_MAX];

	for (;;) {
		AUTO_FD plain = -1;
		unsigned n_fds = 0;
		ssize_t n = receive_record(channel, buffer, sizeof buffer, &plain, &n_fds);
		int r;

		if (n == -EAGAIN)
			r = stream_wait(channel, POLLIN, limits, why);
		else if (n == 0)
			r = fail_plain(why, ECONNRESET, "nbd-tls ended in the handshake, or does not "
			               "let us connect; its journal says why");
		else if (n < 0)
			r = fail(why, (int) -n, "cannot hear nbd-tls");
		else
			r = take_record(bytes_over(buffer, (size_t) n), &plain, n_fds, why);
		if (r == 1)
			*ret_fd = take_fd(&plain);
		if (r)
			return r < 0 ? r : 0;
	}
}

int tls_connect(int *fd, const char *host, const struct client_limits *limits, struct failure *why)
{
	AUTO_FD channel = -1;
	int plain = -1;
	int r = open_channel(&channel, why);

	if (r == 0)
		r = ask(channel, *fd, host, limits, why);
	if (r < 0)
		return r;
	close_fd(fd);                   /* from now on it is nbd-tls's */
	r = await_answer(channel, limits, &plain, why);
	if (r == 0)
		*fd = plain;
	return r;
}
