/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verb `run`: keeps all connections busy from one thread, and tells what came of it.  A
 * single connection waits in recv(2) itself; several wait in epoll(7).
 */
#include "verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "connection.h"
#include "content.h"
#include "report.h"

#define PATIENCE_MS 60000
#define N_EVENTS 64

struct run {
	struct load load;
	struct connection *connections;
	unsigned n_connections;
	unsigned n_open;                /* not finished */
	int epoll;
	uint64_t started;
	uint64_t deadline;              /* UINT64_MAX: none */
};

static void check_settings(const struct settings *settings)
{
	if (settings->seconds > 0 && settings->requests)
		refuse_usage("--seconds or --requests, not both");
	if (settings->seconds <= 0 && !settings->requests &&
	    settings->pattern != PATTERN_SEQUENTIAL)
		refuse_usage("--seconds or --requests is needed");
	if (settings->verify && settings->block % 8)
		refuse_usage("--verify needs a block that is a multiple of 8");
}

/* Compares what was asked for with the first connection's export. */
static void check_export(struct run *run)
{
	const struct settings *settings = run->load.settings;
	const struct peer *peer = &run->connections[0].peer;
	uint64_t region = settings->region ? settings->region : peer->size;

	if (region > peer->size)
		give_up("the region has %" PRIu64 " bytes, the export %" PRIu64, region,
		        peer->size);
	if (settings->block % peer->min_block || settings->block > peer->max_block)
		give_up("blocks of %" PRIu64 " bytes: the export takes %u to %u", settings->block,
		        peer->min_block, peer->max_block);
	run->load.n_blocks = region / settings->block;
	if (run->load.n_blocks < settings->connections)
		give_up("%" PRIu64 " connections do not find a block each in %" PRIu64 " bytes",
		        settings->connections, region);
}

static void watch(struct run *run, struct connection *connection, int operation)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

	if (connection_has_unsent(connection))
		event.events |= EPOLLOUT;
	if (epoll_ctl(run->epoll, operation, connection->peer.stream.fd, &event))
		give_up("epoll: %s", strerror(errno));
}

static void open_all(struct run *run)
{
	const struct settings *settings = run->load.settings;
	struct address address;

	raise_descriptor_limit();
	address_parse(settings->to, &address);
	run->n_connections = (unsigned) settings->connections;
	run->connections = allocate(run->n_connections, sizeof *run->connections);
	run->load.payload = allocate(1, settings->block);
	run->load.received = allocate(1, RECEIVE_SIZE);
	content_fill(run->load.payload, settings->block & ~UINT64_C(7), settings->seed, 0);
	run->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < run->n_connections; i++)
		connection_open(&run->connections[i], &run->load, i, &address);
	check_export(run);
	uint64_t n_requests = settings->requests;

	if (settings->seconds <= 0 && !n_requests)
		n_requests = run->load.n_blocks;
	for (unsigned i = 0; i < run->n_connections; i++) {
		connection_share(&run->connections[i], n_requests);
		watch(run, &run->connections[i], EPOLL_CTL_ADD);
	}
}

static void start_all(struct run *run)
{
	double seconds = run->load.settings->seconds;

	run->load.now = run->started = now_ns();
	run->deadline = seconds > 0 ? run->started + (uint64_t) (seconds * 1e9) : UINT64_MAX;
	for (unsigned i = 0; i < run->n_connections; i++) {
		struct connection *connection = &run->connections[i];

		if (connection_is_finished(connection))
			continue;
		run->n_open += 1;
		connection_submit(connection);
		if (connection_has_unsent(connection))
			watch(run, connection, EPOLL_CTL_MOD);
	}
}

/* Receives once and keeps the connection busy. */
static void pump(struct run *run, struct connection *connection, bool dontwait)
{
	connection_receive(connection, dontwait);
	if (run->load.now >= run->deadline)
		run->load.stopping = true;
	connection_submit(connection);
	if (connection_is_finished(connection))
		run->n_open -= 1;
}

static void loop_single(struct run *run)
{
	struct connection *connection = &run->connections[0];

	while (run->n_open) {
		struct pollfd poll_fd = {.fd = connection->peer.stream.fd, .events = POLLIN | POLLOUT};

		if (!connection_has_unsent(connection)) {
			pump(run, connection, false);
			continue;
		}
		if (poll(&poll_fd, 1, PATIENCE_MS) == 0)
			give_up("no reply for a minute");
		pump(run, connection, true);
	}
}

static void loop_many(struct run *run)
{
	struct epoll_event events[N_EVENTS];

	while (run->n_open) {
		int n = epoll_wait(run->epoll, events, N_EVENTS, PATIENCE_MS);

		if (n < 0 && errno != EINTR)
			give_up("epoll: %s", strerror(errno));
		if (n == 0)
			give_up("no reply for a minute");
		for (int i = 0; i < n; i++) {
			struct connection *connection = events[i].data.ptr;
			bool was_unsent = connection_has_unsent(connection);

			pump(run, connection, true);
			if (was_unsent != connection_has_unsent(connection))
				watch(run, connection, EPOLL_CTL_MOD);
		}
	}
}

static void tell(const struct run *run, double seconds, double cpu)
{
	const struct load *load = &run->load;
	double iops = (double) load->n_done / seconds;
	double rate = (double) load->n_bytes / seconds / 1e6;

	if (!load->settings->json) {
		printf("%" PRIu64 " requests in %.3f s: %.0f IOPS, %.1f MB/s, %" PRIu64 " errors, ",
		       load->n_done, seconds, iops, rate, load->n_errors);
		print_latency_line(&load->latency);
		printf(", %.3f CPU s\n", cpu);
		return;
	}
	printf("{\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"bytes\":%" PRIu64
	       ",\"seconds\":%.6f,\"iops\":%.1f,\"mb_per_s\":%.3f,",
	       load->n_done, load->n_errors, load->n_bytes, seconds, iops, rate);
	print_latency_json(&load->latency);
	printf(",\"cpu_seconds\":%.6f}\n", cpu);
}

static void close_all(struct run *run)
{
	for (unsigned i = 0; i < run->n_connections; i++)
		connection_close(&run->connections[i]);
	close(run->epoll);
	free(run->connections);
	free(run->load.payload);
	free(run->load.received);
}

int run_load(const struct settings *settings)
{
	static struct run run;

	run.load.settings = settings;
	check_settings(settings);
	open_all(&run);
	double cpu = cpu_seconds();

	start_all(&run);
	if (run.n_connections == 1)
		loop_single(&run);
	else
		loop_many(&run);
	tell(&run, (double) (run.load.now - run.started) / 1e9, cpu_seconds() - cpu);
	close_all(&run);
	return run.load.n_errors ? 1 : 0;
}
