/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of a device, held beside the kernel, and how they are connected.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach/held-sockets.h"
#include "attach/stream.h"
#include "base/attr.h"
#include "base/clock.h"

/* Both ends of a connection over TCP on this machine; the first is the client's. */
static void tcp_pair(int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
	                               .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *) &address, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *) &address, &len) < 0 ||
	    connect(ret[0], (struct sockaddr *) &address, len) < 0)
		abort();
	ret[1] = accept(listener, NULL, NULL);
	(void) close(listener);
}

/* Sends until no more goes, and shuts down as the kernel's driver does; how much was sent. */
static size_t fill_and_shut(int fd)
{
	static const uint8_t zeroes[65536];
	size_t sent = 0;
	ssize_t n;

	while ((n = send(fd, zeroes, sizeof zeroes, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		sent += (size_t) n;
	(void) shutdown(fd, SHUT_RDWR);
	return sent;
}

/* Reads to the end; false when that was a reset. */
static bool drain(int fd, size_t *ret_received)
{
	static uint8_t buffer[65536];
	ssize_t n;

	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		*ret_received += (size_t) n;
	return n == 0;
}

TEST(what_a_dead_connection_had_to_deliver_is_not_delivered)
{
	struct held_sockets held;
	int dead[2], living[2];
	size_t received = 0, sent;

	held_sockets_init(&held, NULL);
	tcp_pair(dead);
	tcp_pair(living);
	sent = fill_and_shut(dead[0]);
	held_sockets_add(&held, dup(dead[0]), 2);       /* the kernel keeps the other */
	held_sockets_add(&held, dup(living[0]), 1);
	CHECK_EQ("the dead one", held_sockets_abort_dead(&held), 1);
	CHECK_EQ("no more", held_sockets_abort_dead(&held), 0);
	CHECK(!drain(dead[1], &received) && received < sent);
	CHECK_EQ("the living one", send(living[0], "x", 1, MSG_NOSIGNAL), 1);
	held_sockets_close(&held);
	CHECK_EQ("still", send(living[0], "x", 1, MSG_NOSIGNAL), 1);
	for (int i = 0; i < 2; i++) {
		(void) close(dead[i]);
		(void) close(living[i]);
	}
}

TEST(a_dead_connection_is_aborted_as_soon_as_the_event_loop_hears_of_it)
{
	struct held_sockets held;
	sd_event *event = NULL;
	int dead[2], living[2];
	size_t received = 0, sent;

	CHECK(sd_event_new(&event) >= 0);
	held_sockets_init(&held, event);
	tcp_pair(dead);
	tcp_pair(living);
	held_sockets_add(&held, dup(dead[0]), 2);
	held_sockets_add(&held, dup(living[0]), 1);
	CHECK_EQ("both live", sd_event_run(event, 0), 0);
	sent = fill_and_shut(dead[0]);
	CHECK(sd_event_run(event, 10 * UINT64_C(1000000)) > 0);
	CHECK(!drain(dead[1], &received) && received < sent);
	CHECK_EQ("none is left", held_sockets_abort_dead(&held), 0);
	CHECK_EQ("nothing more to hear", sd_event_run(event, 0), 0);
	CHECK_EQ("the living one", send(living[0], "x", 1, MSG_NOSIGNAL), 1);
	held_sockets_close(&held);
	sd_event_unref(event);
	for (int i = 0; i < 2; i++) {
		(void) close(dead[i]);
		(void) close(living[i]);
	}
}

TEST(the_least_size_is_told_only_when_all_connections_are_held)
{
	struct held_sockets held;
	uint64_t least = 7;
	int pair[2];

	held_sockets_init(&held, NULL);
	tcp_pair(pair);
	CHECK(!held_sockets_least(&held, 0, &least));
	held_sockets_add(&held, dup(pair[0]), 4096);
	CHECK(!held_sockets_least(&held, 2, &least));
	held_sockets_add(&held, dup(pair[1]), 2048);
	CHECK(!held_sockets_least(&held, 1, &least));
	CHECK_EQ("untouched", least, 7);
	CHECK(held_sockets_least(&held, 2, &least));
	CHECK_EQ("", least, 2048);
	held_sockets_close(&held);
	(void) close(pair[0]);
	(void) close(pair[1]);
}

TEST(more_sockets_than_there_is_room_for_are_closed)
{
	struct held_sockets held;
	int pipes[2];

	held_sockets_init(&held, NULL);
	if (pipe2(pipes, O_CLOEXEC) < 0)
		abort();
	for (size_t i = 0; i < NBD_MAX_SOCKETS; i++)
		held_sockets_add(&held, dup(pipes[0]), 1);
	held_sockets_add(&held, pipes[0], 1);
	CHECK_EQ("", fcntl(pipes[0], F_GETFD), -1);
	held_sockets_close(&held);
	CHECK_EQ("all are closed", held.all[0].fd, -1);
	(void) close(pipes[1]);
}

/* Listens on a port of loopback, as *ret and `address` then say. */
static int listen_somewhere(int backlog, struct sockaddr_in *address, struct addrinfo *ret)
{
	socklen_t len = sizeof *address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*address = (struct sockaddr_in) { .sin_family = AF_INET,
	                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (fd < 0 || bind(fd, (struct sockaddr *) address, len) < 0 || listen(fd, backlog) < 0 ||
	    getsockname(fd, (struct sockaddr *) address, &len) < 0)
		abort();
	*ret = (struct addrinfo) { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM,
	                           .ai_addr = (struct sockaddr *) address, .ai_addrlen = len };
	return fd;
}

/* The kernel answers nobody whose place in the queue is taken. */
TEST(an_address_that_hangs_leaves_time_for_the_next)
{
	const struct client_limits limits = { .deadline = monotonic_us() + 1000000,
	                                      .cancel_fd = -1 };
	struct sockaddr_in addresses[2];
	struct addrinfo first, second;
	struct failure why = { 0 };
	int hangs = listen_somewhere(0, &addresses[0], &first), fd = -1;
	int answers = listen_somewhere(8, &addresses[1], &second);
	int filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (filler < 0 || connect(filler, first.ai_addr, first.ai_addrlen) < 0)
		abort();
	CHECK_EQ("alone", stream_connect_first(&first, &(struct client_limits) {
		.deadline = monotonic_us() + 100000, .cancel_fd = -1 }, &fd, &why), -ETIMEDOUT);
	first.ai_next = &second;
	CHECK_EQ(why.text, stream_connect_first(&first, &limits, &fd, &why), 0);
	(void) close(fd);
	(void) close(filler);
	(void) close(answers);
	(void) close(hangs);
}
