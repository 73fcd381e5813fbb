/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/running.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/export-settings.h"

#define FIELD(name, type, member) { name, type, offsetof(struct running, member) }

static const struct control_field export_fields[] = {
	FIELD("Name", 's', name),
	FIELD("Device", 's', device),
	FIELD("Description", 's', description),
	FIELD("State", 's', state),
	FIELD("StateReason", 's', state_reason),
	FIELD("Size", 't', size),
	FIELD("ReadOnly", 'b', read_only),
	FIELD("Shared", 'b', shared),
	FIELD("Direct", 'b', direct),
	FIELD("Rotational", 'b', rotational),
	FIELD("WriteCache", 'b', write_cache),
	FIELD("CanDiscard", 'b', can_discard),
	FIELD("Sector", 'u', sector),
	FIELD("PhysicalBlock", 'u', physical_block),
	FIELD("OptimalIO", 'u', optimal_io),
	FIELD("Engine", 's', engine),
	FIELD("Threads", 'u', threads),
	FIELD("Memory", 't', memory),
	FIELD("MemoryUsed", 't', memory_used),
	FIELD("MaxConnections", 'u', max_connections),
	FIELD("Connections", 'u', connections),
	FIELD("Requests", 't', requests),
	FIELD("Errors", 't', errors),
	FIELD("BytesRead", 't', bytes_read),
	FIELD("BytesWritten", 't', bytes_written),
	FIELD("Since", 't', since),
	FIELD("FlushFailed", 's', flush_failed),
	FIELD("BitmapProblem", 's', bitmap_problem),
	FIELD("StuckSince", 't', stuck_since),
};

#define CLIENT_FIELD(name, type, member) { name, type, offsetof(struct running_client, member) }

static const struct control_field client_fields[] = {
	CLIENT_FIELD("Connection", 't', connection),
	CLIENT_FIELD("Peer", 's', peer),
	CLIENT_FIELD("Since", 't', since),
	CLIENT_FIELD("Mode", 's', mode),
	CLIENT_FIELD("Contexts", 'l', contexts),
	CLIENT_FIELD("ReadOnly", 'b', read_only),
	CLIENT_FIELD("TLS", 's', tls),
	CLIENT_FIELD("Identity", 's', identity),
	CLIENT_FIELD("Requests", 't', requests),
	CLIENT_FIELD("Errors", 't', errors),
	CLIENT_FIELD("BytesRead", 't', bytes_read),
	CLIENT_FIELD("BytesWritten", 't', bytes_written),
	CLIENT_FIELD("InFlight", 'u', in_flight),
	CLIENT_FIELD("Memory", 't', memory),
};

#define NEGOTIATOR_FIELD(name, type, member) \
	{ name, type, offsetof(struct running_negotiator, member) }

static const struct control_field negotiator_fields[] = {
	NEGOTIATOR_FIELD("Handshakes", 'u', handshakes),
	NEGOTIATOR_FIELD("Clients", 'u', clients),
	NEGOTIATOR_FIELD("Refused", 't', refused),
	NEGOTIATOR_FIELD("Exports", 'u', exports),
	NEGOTIATOR_FIELD("Since", 't', since),
};

static int name_socket(const struct places *p, const char *label, char *ret, size_t size,
                       struct failure *why)
{
	int r = export_label_check(label, why);

	return r < 0 ? r : places_control(p, label, ret, size, why);
}

static int connect_export(const struct places *p, const char *label, sd_bus **ret,
                          struct failure *why)
{
	char path[PLACES_SOCKET_SIZE];
	int r = name_socket(p, label, path, sizeof path, why);

	return r < 0 ? r : control_connect(path, ret, why);
}

int running_connect(const struct places *p, const char *label, sd_bus **ret,
                    struct failure *why)
{
	struct failure cause = { 0 };
	AUTO_FREE char *file = NULL;
	int r = connect_export(p, label, ret, &cause);

	if (!control_is_absent(r)) {
		if (r < 0)
			*why = cause;
		return r;
	}
	file = places_file(p, label);
	if (file && access(file, F_OK) < 0)
		return fail_plain(why, ENOENT, "there is no export %s: no file %s", label, file);
	return fail_plain(why, ENOTCONN, "%s does not run: its process starts with its first "
	                  "client", label);
}

static int fail_answer(struct inquiry *q, int r)
{
	q->result = fail(&q->why, -r, "cannot understand %s", q->peer.title);
	return q->result;
}

void running_ask(const struct places *p, const char *label, struct inquiry *ret)
{
	*ret = (struct inquiry) { .peer = *CONTROL_EXPORT(label) };
	ret->result = name_socket(p, label, ret->socket, sizeof ret->socket, &ret->why);
}

int running_answer(struct inquiry *inquiry, struct running *ret)
{
	struct running running = { 0 };
	int r;

	if (inquiry->result < 0)
		return inquiry->result;
	r = control_read_dictionary(inquiry->reply, export_fields, ARRAY_LEN(export_fields),
	                            &running);
	if (r < 0) {
		running_clear(&running);
		return fail_answer(inquiry, r);
	}
	*ret = running;
	return 0;
}

int running_read(const struct places *p, const char *label, struct running *ret,
                 struct failure *why)
{
	struct inquiry inquiry;
	int r;

	running_ask(p, label, &inquiry);
	inquire(&inquiry, 1, CONTROL_PATIENCE);
	r = running_answer(&inquiry, ret);
	if (r < 0)
		*why = inquiry.why;
	inquiry_clear(&inquiry);
	return r;
}

void running_clear(struct running *r)
{
	free(r->name);
	free(r->device);
	free(r->description);
	free(r->state);
	free(r->state_reason);
	free(r->engine);
	free(r->flush_failed);
	free(r->bitmap_problem);
	*r = (struct running) { 0 };
}

bool running_serves(sd_bus *bus, const char *label)
{
	AUTO_MESSAGE *m = NULL, *reply = NULL;
	struct running running = { 0 };
	bool serves = true;

	if (control_new_call(bus, CONTROL_EXPORT(label), NULL, &m) >= 0 &&
	    sd_bus_call(bus, m, CONTROL_PATIENCE, NULL, &reply) >= 0 &&
	    control_read_dictionary(reply, export_fields, ARRAY_LEN(export_fields), &running) > 0 &&
	    running.state)
		serves = strcmp(running.state, "serving") == 0;
	running_clear(&running);
	return serves;
}

static void clear_client(struct running_client *c)
{
	free(c->peer);
	free(c->mode);
	free(c->contexts);
	free(c->tls);
	free(c->identity);
}

void running_clients_free(struct running_client *clients, size_t n)
{
	for (size_t i = 0; i < n; i++)
		clear_client(&clients[i]);
	free(clients);
}

/* 1 for one more client, 0 at the end, -errno. */
static int read_client(sd_bus_message *m, struct running_client **all, size_t *n)
{
	struct running_client client = { 0 };
	struct running_client *more;
	int r = control_read_dictionary(m, client_fields, ARRAY_LEN(client_fields), &client);

	if (r > 0) {
		more = reallocarray(*all, *n + 1, sizeof *more);
		if (more) {
			*all = more;
			more[(*n)++] = client;
			return 1;
		}
		r = -ENOMEM;
	}
	clear_client(&client);
	return r;
}

/* -errno */
static int read_clients(sd_bus_message *m, struct running_client **ret, size_t *ret_n)
{
	struct running_client *all = NULL;
	size_t n = 0;
	int r = sd_bus_message_enter_container(m, 'a', "a{sv}");

	while (r > 0)
		r = read_client(m, &all, &n);
	if (r < 0) {
		running_clients_free(all, n);
		return r;
	}
	*ret = all;
	*ret_n = n;
	return 0;
}

int running_clients(sd_bus *bus, const char *label, struct running_client **ret, size_t *ret_n,
                    struct failure *why)
{
	AUTO_MESSAGE *m = NULL;
	int r = control_call(bus, CONTROL_EXPORT(label), "ListClients", NULL, CONTROL_PATIENCE, &m,
	                     why);

	if (r < 0)
		return r;
	r = read_clients(m, ret, ret_n);
	return r < 0 ? fail(why, -r, "cannot understand %s's list of clients", label) : 0;
}

void running_ask_clients(const struct places *p, const char *label, struct inquiry *ret)
{
	running_ask(p, label, ret);
	ret->method = "ListClients";
}

int running_answer_clients(struct inquiry *inquiry, struct running_client **ret, size_t *ret_n)
{
	int r;

	if (inquiry->result < 0)
		return inquiry->result;
	r = read_clients(inquiry->reply, ret, ret_n);
	return r < 0 ? fail_answer(inquiry, r) : 0;
}

static int connect_negotiator(const struct places *p, sd_bus **ret, struct failure *why)
{
	char path[PLACES_SOCKET_SIZE];
	int r = places_negotiator(p, path, sizeof path, why);

	return r < 0 ? r : control_connect(path, ret, why);
}

void running_ask_negotiator(const struct places *p, struct inquiry *ret)
{
	*ret = (struct inquiry) { .peer = *CONTROL_NEGOTIATOR };
	ret->result = places_negotiator(p, ret->socket, sizeof ret->socket, &ret->why);
}

int running_answer_negotiator(struct inquiry *inquiry, struct running_negotiator *ret)
{
	int r;

	if (inquiry->result < 0)
		return inquiry->result;
	r = control_read_dictionary(inquiry->reply, negotiator_fields,
	                            ARRAY_LEN(negotiator_fields), ret);
	return r < 0 ? fail_answer(inquiry, r) : 0;
}

int running_negotiator_reload(const struct places *p, struct failure *why)
{
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	int r = connect_negotiator(p, &bus, &cause);

	if (control_is_absent(r))
		return 0;
	if (r < 0)
		*why = cause;
	else
		r = control_call(bus, CONTROL_NEGOTIATOR, "Reload", NULL, CONTROL_PATIENCE, NULL,
		                 why);
	return r < 0 ? r : 1;
}
