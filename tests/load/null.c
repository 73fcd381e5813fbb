/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The null server: reads are zeroes, writes vanish, all else succeeds.  One thread for each
 * connection, which receives many requests at once and answers them with one send: what it
 * reaches is what client and socket leave to any server.  It trusts its client.
 */
#include "null.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "address.h"
#include "report.h"
#include "verbs.h"

#define RECEIVE_SIZE (256u << 10)
#define ZEROES_SIZE (1u << 20)
#define HEADERS_SIZE (128u << 10)
#define LARGEST_REPLY 64u               /* of all that is no data */
#define PIECES_FOR_ONE (LARGEST_PAYLOAD / ZEROES_SIZE + 2)

struct client {
	int fd;
	enum mode mode;
	uint64_t size;
	uint64_t n_payload;             /* of a write, still to swallow */
	uint64_t cookie;                /* of that write */
	size_t n_kept;                  /* the start of a request, in `received` */
	unsigned n_iov;
	size_t n_headers;
	struct iovec iov[IOV_MAX];
	uint8_t headers[HEADERS_SIZE];
	uint8_t received[RECEIVE_SIZE];
};

static uint8_t *zeroes;                 /* in real pages, as a real server's would be */

static bool flush(struct client *client)
{
	struct msghdr message = {.msg_iov = client->iov, .msg_iovlen = client->n_iov};

	while (message.msg_iovlen) {
		ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL);

		if (sent < 0)
			return false;
		for (; message.msg_iovlen && (size_t) sent >= message.msg_iov->iov_len;
		     message.msg_iov++, message.msg_iovlen--)
			sent -= (ssize_t) message.msg_iov->iov_len;
		if (sent) {
			message.msg_iov->iov_base = (uint8_t *) message.msg_iov->iov_base + sent;
			message.msg_iov->iov_len -= (size_t) sent;
		}
	}
	client->n_iov = 0;
	client->n_headers = 0;
	return true;
}

static void add_bytes(struct client *client, uint8_t *at, size_t n)
{
	struct iovec *last = client->iov + client->n_iov - 1;

	if (client->n_iov && (uint8_t *) last->iov_base + last->iov_len == at)
		last->iov_len += n;
	else
		client->iov[client->n_iov++] = (struct iovec) {at, n};
}

/* The header of a chunk that ends its request; returns its size. */
static size_t put_chunk(const struct client *client, uint8_t *at, unsigned type, uint64_t cookie,
                        uint64_t offset, uint64_t length)
{
	put_be16(at + 4, CHUNK_FLAG_DONE);
	put_be16(at + 6, (uint16_t) type);
	put_be64(at + 8, cookie);
	if (client->mode == MODE_EXTENDED) {
		put_be32(at, EXTENDED_CHUNK_MAGIC);
		put_be64(at + 16, offset);
		put_be64(at + 24, length);
		return EXTENDED_CHUNK_SIZE;
	}
	put_be32(at, CHUNK_MAGIC);
	put_be32(at + 16, (uint32_t) length);
	return CHUNK_SIZE;
}

static size_t put_success(const struct client *client, uint8_t *at, uint64_t cookie)
{
	if (client->mode != MODE_SIMPLE)
		return put_chunk(client, at, CHUNK_NONE, cookie, 0, 0);
	put_be32(at, SIMPLE_REPLY_MAGIC);
	put_be32(at + 4, 0);
	put_be64(at + 8, cookie);
	return SIMPLE_REPLY_SIZE;
}

static size_t put_read(const struct client *client, uint8_t *at, uint64_t cookie, uint64_t offset,
                       uint64_t length)
{
	if (client->mode == MODE_SIMPLE)
		return put_success(client, at, cookie);
	size_t n = put_chunk(client, at, CHUNK_OFFSET_DATA, cookie, offset, length + 8);

	put_be64(at + n, offset);
	return n + 8;
}

/* One extent of data, as long as the request. */
static size_t put_status(const struct client *client, uint8_t *at, uint64_t cookie,
                         uint64_t offset, uint64_t length)
{
	bool extended = client->mode == MODE_EXTENDED;
	size_t n = put_chunk(client, at, extended ? CHUNK_BLOCK_STATUS_EXT : CHUNK_BLOCK_STATUS,
	                     cookie, offset, extended ? 24 : 12);

	put_be32(at + n, NULL_CONTEXT);
	if (extended) {
		put_be32(at + n + 4, 1);
		put_be64(at + n + 8, length);
		put_be64(at + n + 16, 0);
		return n + 24;
	}
	put_be32(at + n + 4, (uint32_t) length);
	put_be32(at + n + 8, 0);
	return n + 12;
}

/* Adds the answer to one request to the batch, of which some goes out when it is full. */
static bool answer(struct client *client, unsigned command, uint64_t cookie, uint64_t offset,
                   uint64_t length)
{
	if ((client->n_headers + LARGEST_REPLY > HEADERS_SIZE ||
	     client->n_iov + PIECES_FOR_ONE > IOV_MAX) && !flush(client))
		return false;
	uint8_t *at = client->headers + client->n_headers;
	bool is_read = command == COMMAND_READ && length;
	size_t n;

	if (is_read)
		n = put_read(client, at, cookie, offset, length);
	else if (command == COMMAND_BLOCK_STATUS && client->mode != MODE_SIMPLE)
		n = put_status(client, at, cookie, offset, length);
	else
		n = put_success(client, at, cookie);
	client->n_headers += n;
	add_bytes(client, at, n);
	while (is_read && length) {
		size_t piece = length < ZEROES_SIZE ? length : ZEROES_SIZE;

		client->iov[client->n_iov++] = (struct iovec) {zeroes, piece};
		length -= piece;
	}
	return true;
}

/* One request's header.  False: the connection is to end. */
static bool take_request(struct client *client, const uint8_t *at)
{
	bool extended = client->mode == MODE_EXTENDED;
	unsigned command = get_be16(at + 6);
	uint64_t cookie = get_be64(at + 8);
	uint64_t length = extended ? get_be64(at + 24) : get_be32(at + 24);

	if (get_be32(at) != (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC) ||
	    command == COMMAND_DISC)
		return false;
	if (command == COMMAND_READ && length > LARGEST_PAYLOAD)
		return false;
	bool has_payload = command == COMMAND_WRITE ||
	                   (extended && get_be16(at + 4) & COMMAND_FLAG_PAYLOAD_LEN);

	if (!has_payload || length == 0)
		return answer(client, command, cookie, get_be64(at + 16), length);
	client->n_payload = length;
	client->cookie = cookie;
	return true;
}

/* Takes all that is whole of n received bytes and keeps the rest for the next time. */
static bool take_bytes(struct client *client, size_t n)
{
	size_t header = client->mode == MODE_EXTENDED ? EXTENDED_REQUEST_SIZE : REQUEST_SIZE;
	const uint8_t *at = client->received;

	while (n) {
		size_t taken = header;

		if (client->n_payload) {
			taken = n < client->n_payload ? n : client->n_payload;
			client->n_payload -= taken;
			if (client->n_payload == 0 &&
			    !answer(client, COMMAND_WRITE, client->cookie, 0, 0))
				return false;
		} else if (n < header) {
			break;
		} else if (!take_request(client, at)) {
			return false;
		}
		at += taken;
		n -= taken;
	}
	memmove(client->received, at, n);
	client->n_kept = n;
	return flush(client);
}

static void *serve(void *argument)
{
	struct client *client = argument;
	bool alive = null_handshake(client->fd, client->size, &client->mode);

	while (alive) {
		ssize_t got = recv(client->fd, client->received + client->n_kept,
		                   RECEIVE_SIZE - client->n_kept, 0);

		alive = got > 0 && take_bytes(client, client->n_kept + (size_t) got);
	}
	close(client->fd);
	free(client);
	return NULL;
}

static void accept_client(int listening, const struct settings *settings)
{
	struct client *client = malloc(sizeof *client);
	pthread_attr_t attributes;
	pthread_t thread;

	if (!client)
		give_up("no memory for a client");
	client->n_payload = client->n_kept = client->n_iov = 0;
	client->n_headers = 0;
	client->size = settings->size;
	client->fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	if (client->fd < 0)
		give_up("cannot accept: %s", strerror(errno));
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 256u << 10);
	int error = pthread_create(&thread, &attributes, serve, client);

	if (error)
		give_up("no thread for a client: %s", strerror(error));
	pthread_attr_destroy(&attributes);
}

int run_null(const struct settings *settings)
{
	struct address address;
	sigset_t ends;

	raise_descriptor_limit();
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	zeroes = mmap(NULL, ZEROES_SIZE, PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (zeroes == MAP_FAILED)
		give_up("no memory for zeroes");
	address_parse(settings->listen, &address);
	struct pollfd fds[] = {
		{.fd = address_listen(&address, settings->socket_buffer), .events = POLLIN},
		{.fd = signalfd(-1, &ends, SFD_CLOEXEC), .events = POLLIN},
	};

	puts("ready");
	fflush(stdout);
	while (poll(fds, 2, -1) > 0 && !fds[1].revents)
		accept_client(fds[0].fd, settings);
	if (strncmp(settings->listen, "unix:", 5) == 0)
		(void) unlink(settings->listen + 5);
	return 0;
}
