/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `connect` and `idle`: connections that ask for nothing. */
#include "verbs.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "handshake.h"
#include "report.h"

int run_connect(const struct settings *settings)
{
	static struct histogram latency;
	struct address address;
	double cpu = cpu_seconds();
	uint64_t started = now_ns();
	uint64_t now = started;

	address_parse(settings->to, &address);
	while (now < started + (uint64_t) (settings->seconds * 1e9)) {
		struct peer peer;
		uint64_t before = now;

		peer_open(&address, settings, false, &peer);
		peer_close(&peer);
		now = now_ns();
		histogram_add(&latency, now - before);
	}
	double seconds = (double) (now - started) / 1e9;
	double rate = (double) latency.n / seconds;

	cpu = cpu_seconds() - cpu;
	if (settings->json) {
		printf("{\"connections\":%" PRIu64 ",\"seconds\":%.6f,\"per_second\":%.1f,",
		       latency.n, seconds, rate);
		print_latency_json(&latency);
		printf(",\"cpu_seconds\":%.6f}\n", cpu);
		return 0;
	}
	printf("%" PRIu64 " connections in %.3f s: %.0f/s, ", latency.n, seconds, rate);
	print_latency_line(&latency);
	printf(", %.3f CPU s\n", cpu);
	return 0;
}

static void wait_for_end_of_input(void)
{
	char dropped[256];

	while (read(STDIN_FILENO, dropped, sizeof dropped) > 0)
		;
}

int run_idle(const struct settings *settings)
{
	struct peer *peers = allocate(settings->connections, sizeof *peers);
	struct address address;
	uint64_t n_lost = 0;

	raise_descriptor_limit();
	address_parse(settings->to, &address);
	for (uint64_t i = 0; i < settings->connections; i++)
		peer_open(&address, settings, false, &peers[i]);
	puts("ready");
	fflush(stdout);
	wait_for_end_of_input();
	for (uint64_t i = 0; i < settings->connections; i++) {
		struct pollfd fd = {.fd = peers[i].stream.fd, .events = POLLIN};

		n_lost += poll(&fd, 1, 0) != 0;
		peer_close(&peers[i]);
	}
	free(peers);
	if (n_lost)
		give_up("the server did not leave %" PRIu64 " connections alone", n_lost);
	return 0;
}
