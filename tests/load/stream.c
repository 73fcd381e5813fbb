/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection's bytes, in clear or by TLS. */
#include "stream.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "report.h"

#define AHEAD_SIZE (128u << 10)
#define RECORD_SIZE 16384u              /* the most that one record carries */
#define LARGEST_KEY 512u
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define PRIORITY_PSK PRIORITY ":-KX-ALL:+ECDHE-PSK:+DHE-PSK"

/* GnuTLS's end of the socket; on the heap, for streams are copied. */
struct read_ahead {
	int fd;
	bool dontwait;
	bool is_empty;                  /* the socket had nothing, or for as long as it waits */
	size_t at;
	size_t end;
	uint8_t bytes[AHEAD_SIZE];
};

static ssize_t pull(gnutls_transport_ptr_t pointer, void *bytes, size_t n)
{
	struct read_ahead *ahead = pointer;

	if (ahead->at == ahead->end) {
		ssize_t got = recv(ahead->fd, ahead->bytes, AHEAD_SIZE,
		                   ahead->dontwait ? MSG_DONTWAIT : 0);

		if (got <= 0) {
			ahead->is_empty = got < 0 && errno == EAGAIN;
			return got;
		}
		ahead->at = 0;
		ahead->end = (size_t) got;
	}
	if (n > ahead->end - ahead->at)
		n = ahead->end - ahead->at;
	memcpy(bytes, ahead->bytes + ahead->at, n);
	ahead->at += n;
	return (ssize_t) n;
}

static ssize_t push(gnutls_transport_ptr_t pointer, const giovec_t *iov, int n_iov)
{
	struct read_ahead *ahead = pointer;
	struct msghdr message = {.msg_iov = (struct iovec *) iov, .msg_iovlen = (size_t) n_iov};

	return sendmsg(ahead->fd, &message, MSG_NOSIGNAL | (ahead->dontwait ? MSG_DONTWAIT : 0));
}

/* What all connections of the program share, made for the first. */
struct secrets {
	gnutls_certificate_credentials_t certificates;
	gnutls_psk_client_credentials_t psk;
};

static void read_key(const char *path, struct secrets *secrets)
{
	char line[LARGEST_KEY], *colon;
	FILE *file = fopen(path, "re");

	if (!file || !fgets(line, sizeof line, file))
		give_up("%s: cannot read a key: %s", path, strerror(errno));
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	colon = strchr(line, ':');
	if (!colon)
		give_up("%s: its first line is not USER:HEX-KEY", path);
	*colon = '\0';
	gnutls_datum_t key = {(unsigned char *) colon + 1, (unsigned) strlen(colon + 1)};
	int error = gnutls_psk_set_client_credentials(secrets->psk, line, &key, GNUTLS_PSK_KEY_HEX);

	if (error)
		give_up("%s: %s", path, gnutls_strerror(error));
}

static const struct secrets *secrets_for(const char *how)
{
	static struct secrets secrets;

	if (secrets.psk || secrets.certificates)
		return &secrets;
	if (strncmp(how, "psk:", 4) == 0) {
		gnutls_psk_allocate_client_credentials(&secrets.psk);
		read_key(how + 4, &secrets);
	} else if (strcmp(how, "x509") == 0) {
		gnutls_certificate_allocate_credentials(&secrets.certificates);
	} else {
		give_up("--tls %s: it is x509 or psk:FILE", how);
	}
	return &secrets;
}

static void set_secrets(gnutls_session_t tls, const struct secrets *secrets)
{
	int error = gnutls_priority_set_direct(tls, secrets->psk ? PRIORITY_PSK : PRIORITY, NULL);

	if (!error && secrets->psk)
		error = gnutls_credentials_set(tls, GNUTLS_CRD_PSK, secrets->psk);
	if (!error && secrets->certificates)
		error = gnutls_credentials_set(tls, GNUTLS_CRD_CERTIFICATE,
		                               secrets->certificates);
	if (error)
		give_up("TLS: %s", gnutls_strerror(error));
}

void stream_start_tls(struct stream *stream, const char *how)
{
	int error = gnutls_init(&stream->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);

	if (error)
		give_up("TLS: %s", gnutls_strerror(error));
	stream->ahead = allocate(1, sizeof *stream->ahead);
	stream->ahead->fd = stream->fd;
	set_secrets(stream->tls, secrets_for(how));
	gnutls_transport_set_ptr(stream->tls, stream->ahead);
	gnutls_transport_set_pull_function(stream->tls, pull);
	gnutls_transport_set_vec_push_function(stream->tls, push);
	do
		error = gnutls_handshake(stream->tls);
	while (error < 0 && !gnutls_error_is_fatal(error));
	if (error)
		give_up("TLS: the handshake failed: %s", gnutls_strerror(error));
}

void stream_close(struct stream *stream)
{
	if (stream->tls) {
		stream->ahead->dontwait = true;
		(void) gnutls_bye(stream->tls, GNUTLS_SHUT_WR);
		gnutls_deinit(stream->tls);
		free(stream->ahead);
	}
	close(stream->fd);
	*stream = (struct stream) {.fd = -1};
}

static ssize_t or_errno(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static ssize_t error_number(ssize_t error)
{
	if (error == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (error == GNUTLS_E_INTERRUPTED)
		return -EINTR;
	if (error == GNUTLS_E_PUSH_ERROR || error == GNUTLS_E_PULL_ERROR)
		return -ECONNRESET;
	return -EPROTO;
}

/* Gathers the start of the batch, a record's worth: small pieces are not worth a record. */
static size_t gather(const struct iovec *iov, unsigned n_iov, uint8_t *room)
{
	size_t n = 0;

	for (unsigned i = 0; i < n_iov && n < RECORD_SIZE; i++) {
		size_t part = RECORD_SIZE - n < iov[i].iov_len ? RECORD_SIZE - n : iov[i].iov_len;

		memcpy(room + n, iov[i].iov_base, part);
		n += part;
	}
	return n;
}

static ssize_t send_tls(struct stream *stream, const struct iovec *iov, unsigned n_iov)
{
	static uint8_t room[RECORD_SIZE];
	ssize_t sent;

	if (stream->n_pending) {
		sent = gnutls_record_send(stream->tls, NULL, 0);
	} else if (iov[0].iov_len >= RECORD_SIZE) {
		stream->n_pending = RECORD_SIZE;
		sent = gnutls_record_send(stream->tls, iov[0].iov_base, RECORD_SIZE);
	} else {
		stream->n_pending = gather(iov, n_iov, room);
		sent = gnutls_record_send(stream->tls, room, stream->n_pending);
	}
	if (sent < 0)
		return error_number(sent);
	sent = (ssize_t) stream->n_pending;
	stream->n_pending = 0;
	return sent;
}

ssize_t stream_send(struct stream *stream, const struct iovec *iov, unsigned n_iov)
{
	struct msghdr message = {.msg_iov = (struct iovec *) iov,
	                         .msg_iovlen = n_iov < IOV_MAX ? n_iov : IOV_MAX};

	if (!stream->tls)
		return or_errno(sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
	stream->ahead->dontwait = true;
	return send_tls(stream, iov, n_iov);
}

/* Waits, if at all, for the first record only. */
static ssize_t receive_tls(struct stream *stream, uint8_t *bytes, size_t size, bool dontwait)
{
	size_t n = 0;

	stream->ahead->dontwait = dontwait;
	stream->ahead->is_empty = false;
	while (n < size) {
		ssize_t got = gnutls_record_recv(stream->tls, bytes + n, size - n);

		/* Such as a session ticket, which is no data. */
		if (got < 0 && !gnutls_error_is_fatal((int) got) && !stream->ahead->is_empty)
			continue;
		if (got <= 0)
			return n ? (ssize_t) n : got ? error_number(got) : 0;
		n += (size_t) got;
		if (!stream_has_more(stream))
			break;
		stream->ahead->dontwait = true;
	}
	return (ssize_t) n;
}

ssize_t stream_receive(struct stream *stream, void *bytes, size_t size, bool dontwait)
{
	if (stream->tls)
		return receive_tls(stream, bytes, size, dontwait);
	return or_errno(recv(stream->fd, bytes, size, dontwait ? MSG_DONTWAIT : 0));
}

bool stream_has_more(const struct stream *stream)
{
	return stream->tls && (stream->ahead->at < stream->ahead->end ||
	                       gnutls_record_check_pending(stream->tls));
}

static ssize_t send_some(struct stream *stream, const void *bytes, size_t n)
{
	struct iovec iov = {(void *) bytes, n};

	if (!stream->tls)
		return or_errno(send(stream->fd, bytes, n, MSG_NOSIGNAL));
	stream->ahead->dontwait = false;
	return send_tls(stream, &iov, 1);
}

void stream_send_all(struct stream *stream, const void *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send_some(stream, bytes, n);

		if (sent == -EINTR)
			continue;
		if (sent < 0)
			give_up("cannot send: %s", strerror((int) -sent));
		bytes = (const uint8_t *) bytes + sent;
		n -= (size_t) sent;
	}
}

void stream_receive_all(struct stream *stream, void *bytes, size_t n)
{
	while (n) {
		ssize_t got = stream_receive(stream, bytes, n, false);

		if (got == -EINTR)
			continue;
		if (got < 0)
			give_up("cannot receive: %s", strerror((int) -got));
		if (got == 0)
			give_up("the server closed the connection");
		bytes = (uint8_t *) bytes + got;
		n -= (size_t) got;
	}
}
