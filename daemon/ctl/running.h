/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a running export and the negotiator tell of themselves, over their control sockets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "ctl/control.h"
#include "ctl/inquiry.h"
#include "ctl/places.h"

/* The properties of org.nbd_export.Export1; strings may be NULL. */
struct running {
	char *name, *device, *description;
	char *state, *state_reason, *engine, *flush_failed, *bitmap_problem;
	uint64_t size, memory, memory_used, requests, errors, bytes_read, bytes_written;
	uint64_t since, stuck_since;
	uint32_t sector, physical_block, optimal_io, threads, max_connections, connections;
	bool read_only, shared, direct, rotational, write_cache, can_discard;
};

struct running_client {
	uint64_t connection, since, requests, errors, bytes_read, bytes_written, memory;
	uint32_t in_flight;
	char *peer, *mode, *contexts;   /* contexts by \n */
	char *tls, *identity;           /* "" in clear, and where nobody is known */
	bool read_only;
};

struct running_negotiator {
	uint32_t handshakes, clients, exports;
	uint64_t refused, since;
};

/* Connects to an export.  A label that cannot be is -EINVAL; one that there is no file for, and
 * one whose export does not run, have sentences of their own. */
int running_connect(const struct places *p, const char *label, sd_bus **ret,
                    struct failure *why);

/* Connects and reads.  When it does not run, control_is_absent() of what is returned. */
int running_read(const struct places *p, const char *label, struct running *ret,
                 struct failure *why);
void running_clear(struct running *r);

/* The same of many at once: questions for inquire(), and what was answered; else the inquiry has
 * the failure.  `label` is borrowed. */
void running_ask(const struct places *p, const char *label, struct inquiry *ret);
int running_answer(struct inquiry *inquiry, struct running *ret);
void running_ask_clients(const struct places *p, const char *label, struct inquiry *ret);
int running_answer_clients(struct inquiry *inquiry, struct running_client **ret, size_t *ret_n);
void running_ask_negotiator(const struct places *p, struct inquiry *ret);
int running_answer_negotiator(struct inquiry *inquiry, struct running_negotiator *ret);

/* Whether an export that was connected to is "serving"; one that does not tell is taken to be. */
bool running_serves(sd_bus *bus, const char *label);

/* The clients of an export that was connected to. */
int running_clients(sd_bus *bus, const char *label, struct running_client **ret, size_t *ret_n,
                    struct failure *why);
void running_clients_free(struct running_client *clients, size_t n);

/* Makes the negotiator read its files again.  1, or 0 if it does not run. */
int running_negotiator_reload(const struct places *p, struct failure *why);
