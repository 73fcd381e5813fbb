/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls-pump: sends and receives so many bytes at once through a connection, and compares them.
 *
 *   tls-pump tls FD BYTES UPDATE_EVERY PRIORITY
 *       a TLS client (server not verified) on the connected socket FD.  After each UPDATE_EVERY
 *       bytes that it has sent it changes its key and asks for the same, at most 7 times a
 *       second, for GnuTLS takes no more than 8.  0: never.
 *   tls-pump plain FD BYTES
 *       the other side, in clear.
 *
 * Prints "ready" after the handshake, and the seconds that it took at the end.  Exit status 1: bytes
 * were wrong or missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256u << 10)

struct pump {
	int fd;
	gnutls_session_t tls;           /* NULL: in clear */
	uint64_t total;
	uint64_t sent;
	uint64_t received;
	uint64_t update_every;
	uint64_t n_updates;
	double last_update;
	uint64_t out_word;              /* where the two directions begin */
	uint64_t in_word;
	uint8_t out[CHUNK];
	size_t out_at;
	size_t out_end;
	uint8_t in[CHUNK];
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "tls-pump: %s: %s\n", what, why);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static uint64_t word_at(uint64_t start, uint64_t offset)
{
	return (start + offset / 8) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(struct pump *p)
{
	for (size_t i = 0; i < CHUNK; i += 8) {
		uint64_t word = word_at(p->out_word, p->sent + i);

		memcpy(p->out + i, &word, 8);
	}
	p->out_at = 0;
	p->out_end = p->total - p->sent < CHUNK ? p->total - p->sent : CHUNK;
}

static void compare(struct pump *p, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint64_t offset = p->received + i, word = word_at(p->in_word, offset);
		size_t skip = offset % 8, n = 8 - skip < len - i ? 8 - skip : len - i;

		if (memcmp(p->in + i, (uint8_t *) &word + skip, n) != 0) {
			fprintf(stderr, "tls-pump: byte %llu or later is wrong\n",
			        (unsigned long long) offset);
			exit(1);
		}
		i += n;
	}
	p->received += len;
}

/* -1 and EAGAIN when it has to wait. */
static ssize_t pump_send(struct pump *p)
{
	ssize_t n;

	if (!p->tls)
		return send(p->fd, p->out + p->out_at, p->out_end - p->out_at,
		            MSG_DONTWAIT | MSG_NOSIGNAL);
	n = gnutls_record_send(p->tls, p->out + p->out_at, p->out_end - p->out_at);
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
		errno = EAGAIN;
		return -1;
	}
	if (n < 0)
		die("send", gnutls_strerror((int) n));
	return n;
}

static ssize_t pump_receive(struct pump *p)
{
	ssize_t n;

	if (!p->tls)
		return recv(p->fd, p->in, sizeof p->in, MSG_DONTWAIT);
	n = gnutls_record_recv(p->tls, p->in, sizeof p->in);
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
		errno = EAGAIN;
		return -1;
	}
	if (n < 0)
		die("receive", gnutls_strerror((int) n));
	return n;
}

/* GnuTLS takes eight in any second for an attack: none comes sooner than a fifth of one after the
 * last, whatever was held up before. */
static void update_key(struct pump *p)
{
	if (!p->update_every || p->sent / p->update_every <= p->n_updates)
		return;
	while (now() - p->last_update < 0.2)
		usleep(1000);
	p->last_update = now();
	if (gnutls_session_key_update(p->tls, GNUTLS_KU_PEER) < 0)
		die("update", "the key could not be changed");
	p->n_updates++;
}

static bool send_some(struct pump *p)
{
	ssize_t n;

	if (p->sent == p->total)
		return false;
	if (p->out_at == p->out_end) {
		update_key(p);
		fill(p);
	}
	n = pump_send(p);
	if (n < 0 && errno != EAGAIN)
		die("send", strerror(errno));
	if (n < 0)
		return false;
	p->out_at += (size_t) n;
	p->sent += (uint64_t) n;
	return true;
}

static bool receive_some(struct pump *p)
{
	ssize_t n;

	if (p->received == p->total)
		return false;
	n = pump_receive(p);
	if (n < 0 && errno != EAGAIN)
		die("receive", strerror(errno));
	if (n == 0)
		die("receive", "end of file too early");
	if (n > 0)
		compare(p, (size_t) n);
	return n > 0;
}

static void run(struct pump *p)
{
	double started = now();

	while (p->sent < p->total || p->received < p->total) {
		bool sent = send_some(p), received = receive_some(p);
		struct pollfd poll_fd = { .fd = p->fd };

		if (sent || received)
			continue;
		poll_fd.events = (short) ((p->sent < p->total ? POLLOUT : 0) |
		                          (p->received < p->total ? POLLIN : 0));
		if (poll(&poll_fd, 1, 60000) <= 0)
			die("poll", "nothing happened for a minute");
	}
	printf("%.3f\n", now() - started);
	fflush(stdout);
}

static void start_tls(struct pump *p, const char *priority)
{
	static gnutls_certificate_credentials_t x509;
	int r;

	gnutls_certificate_allocate_credentials(&x509);
	gnutls_init(&p->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	if (gnutls_priority_set_direct(p->tls, priority, NULL) < 0)
		die(priority, "bad priority");
	gnutls_credentials_set(p->tls, GNUTLS_CRD_CERTIFICATE, x509);
	gnutls_transport_set_int(p->tls, p->fd);
	while ((r = gnutls_handshake(p->tls)) < 0) {
		struct pollfd poll_fd = {
			.fd = p->fd,
			.events = gnutls_record_get_direction(p->tls) ? POLLOUT : POLLIN,
		};

		if (gnutls_error_is_fatal(r))
			die("handshake", gnutls_strerror(r));
		(void) poll(&poll_fd, 1, 60000);
	}
}

int main(int argc, char **argv)
{
	static struct pump p;
	bool tls = argc == 6 && strcmp(argv[1], "tls") == 0;

	if (!tls && !(argc == 4 && strcmp(argv[1], "plain") == 0))
		die("usage", "tls FD BYTES UPDATE_EVERY PRIORITY, or plain FD BYTES");
	p.fd = atoi(argv[2]);
	p.total = strtoull(argv[3], NULL, 10);
	p.out_word = tls ? 1 : UINT64_C(1) << 60;
	p.in_word = tls ? UINT64_C(1) << 60 : 1;
	(void) fcntl(p.fd, F_SETFL, fcntl(p.fd, F_GETFL) | O_NONBLOCK);
	if (tls) {
		p.update_every = strtoull(argv[4], NULL, 10);
		start_tls(&p, argv[5]);
	}
	puts("ready");
	fflush(stdout);
	run(&p);
	if (tls)
		(void) gnutls_bye(p.tls, GNUTLS_SHUT_WR);
	return 0;
}
