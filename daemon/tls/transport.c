/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's socket: large receives and sends, out of which GnuTLS takes and into which it
 * puts its records.
 *
 * Readiness is edge-triggered and remembered, so a busy session asks the kernel for nothing
 * but the bytes.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tls/session.h"

int end_watch(struct end *end, struct session *session, int fd)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end,
	};

	*end = (struct end) { .session = session, .fd = -1 };
	if (epoll_ctl(session->worker->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	end->fd = fd;
	return 0;
}

/* Removed by name: whoever passed us the descriptor may still have it open. */
void end_close(struct end *end)
{
	if (end->fd >= 0 && end->session->worker)
		(void) epoll_ctl(end->session->worker->epoll, EPOLL_CTL_DEL, end->fd, NULL);
	close_fd(&end->fd);
}

bool transport_has_received(const struct session *session)
{
	return session->worker->received_at < session->worker->received_end;
}

bool transport_fill(struct session *session)
{
	struct worker *w = session->worker;
	ssize_t n;

	if (!session->client.readable || session->client_closed || session->broken)
		return false;
	do
		n = recv(session->client.fd, w->received, WORKER_BATCH, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		session->client.readable = false;
		return false;
	}
	if (n < 0)
		session->broken = errno;
	else if (n == 0)
		session->client_closed = true;
	else if (n < (ssize_t) WORKER_BATCH && !session->client.hung_up)
		session->client.readable = false;
	w->received_at = 0;
	w->received_end = n > 0 ? (size_t) n : 0;
	return true;
}

/* GnuTLS wants bytes. */
static ssize_t pull(gnutls_transport_ptr_t ptr, void *ret, size_t size)
{
	struct session *session = ptr;
	struct worker *w = session->worker;
	size_t len = w->received_end - w->received_at;

	if (len == 0 && session->client_closed)
		return 0;
	if (len == 0) {
		gnutls_transport_set_errno(session->tls,
		                           session->broken ? session->broken : EAGAIN);
		return -1;
	}
	if (len > size)
		len = size;
	memcpy(ret, w->received + w->received_at, len);
	w->received_at += len;
	return (ssize_t) len;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned milliseconds)
{
	const struct session *session = ptr;

	(void) milliseconds;
	return transport_has_received(session) || session->client_closed;
}

/* GnuTLS has bytes.  There is always room for what a turn makes; without it the session ends. */
static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int n)
{
	struct session *session = ptr;
	size_t total = 0;

	if (!session->out)
		session->out = worker_take_buffer(session->worker);
	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	if (!session->out || total > BUFFER_SIZE - session->out->end) {
		gnutls_transport_set_errno(session->tls, ENOBUFS);
		return -1;
	}
	for (int i = 0; i < n; i++) {
		memcpy(session->out->bytes + session->out->end, iov[i].iov_base, iov[i].iov_len);
		session->out->end += iov[i].iov_len;
	}
	return (ssize_t) total;
}

void transport_attach(struct session *session)
{
	gnutls_transport_set_ptr(session->tls, session);
	gnutls_transport_set_pull_function(session->tls, pull);
	gnutls_transport_set_pull_timeout_function(session->tls, pull_timeout);
	gnutls_transport_set_vec_push_function(session->tls, push);
}

int end_send(struct end *end, struct buffer **buffer)
{
	struct buffer *b = *buffer;

	while (b && b->at < b->end) {
		ssize_t n;

		if (!end->writable)
			return -EAGAIN;
		n = send(end->fd, b->bytes + b->at, b->end - b->at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			end->writable = false;
		else if (n < 0 && errno != EINTR)
			return -errno;
		else if (n > 0)
			b->at += (size_t) n;
	}
	worker_give_back(end->session->worker, buffer);
	return 0;
}

int transport_flush(struct session *session)
{
	return end_send(&session->client, &session->out);
}
