/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * org.nbd_export.Export1: one function per method, one line per property.
 *
 * Figures are those of the last census, which was not before the caller connected.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "dirty/tracker.h"
#include "export/bitmaps.h"
#include "export/control.h"
#include "export/engine.h"
#include "export/server.h"
#include "wire/names.h"

/* Properties */

#define PROPERTY_GETTER(name, type, ctype, expression)                        \
	static int get_##name(sd_bus *bus, const char *path, const char *interface,   \
	                      const char *property, sd_bus_message *reply, void *userdata,  \
	                      sd_bus_error *error)                            \
	{                                                                     \
		struct server *s = userdata;                                    \
                                                                              \
		(void) bus, (void) path, (void) interface, (void) property, (void) error;  \
		return sd_bus_message_append(reply, type, (ctype) (expression));  \
	}

#define TEXT(name, expression) PROPERTY_GETTER(name, "s", const char *, expression)
#define FLAG(name, expression) PROPERTY_GETTER(name, "b", int, expression)
#define NUMBER(name, expression) PROPERTY_GETTER(name, "u", uint32_t, expression)
#define COUNT(name, expression) PROPERTY_GETTER(name, "t", uint64_t, expression)

TEXT(label, s->settings->label)
TEXT(name, s->settings->name)
TEXT(device, s->settings->device)
TEXT(description, s->settings->description ? s->settings->description : "")
TEXT(state, state_word(s->state))
TEXT(state_reason, s->state_reason)
TEXT(engine, s->export.loops[0].ring.engine->name)
FLAG(read_only, s->export.device.read_only)
FLAG(shared, s->settings->shared)
FLAG(direct, s->export.device.direct)
FLAG(rotational, s->export.device.rotational)
FLAG(write_cache, s->export.device.write_cache)
FLAG(can_discard, s->export.device.can_discard)
NUMBER(sector, s->export.device.sector)
NUMBER(physical_block, s->export.device.physical_block)
NUMBER(optimal_io, s->export.device.optimal_io)
NUMBER(threads, s->export.n_loops)
NUMBER(max_connections, s->settings->max_connections)
NUMBER(connections, admit_count(&s->admission))
COUNT(size, s->export.device.size)
COUNT(memory, s->memory)
COUNT(memory_used, census_memory(&s->census))
COUNT(requests, admit_totals(&s->admission).n_requests)
COUNT(errors, admit_totals(&s->admission).n_errors)
COUNT(bytes_read, admit_totals(&s->admission).bytes_read)
COUNT(bytes_written, admit_totals(&s->admission).bytes_written)
COUNT(since, s->since)
COUNT(stuck_since, s->pulse.stuck_since)

static int get_bitmap_problem(sd_bus *bus, const char *path, const char *interface,
                              const char *property, sd_bus_message *reply, void *userdata,
                              sd_bus_error *error)
{
	struct server *s = userdata;
	char problem[BITMAPS_PROBLEM_SIZE];

	(void) bus, (void) path, (void) interface, (void) property, (void) error;
	bitmaps_problem(&s->export, problem);
	return sd_bus_message_append(reply, "s", problem);
}

static int get_flush_failed(sd_bus *bus, const char *path, const char *interface,
                            const char *property, sd_bus_message *reply, void *userdata,
                            sd_bus_error *error)
{
	struct server *s = userdata;
	char reason[LATCH_REASON_SIZE];

	(void) bus, (void) path, (void) interface, (void) property, (void) error;
	latch_reason(&s->export.latch, reason);
	return sd_bus_message_append(reply, "s", reason);
}

/* Methods */

static int list_clients(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	return control_defer(userdata, message, WAITS_FOR_CLIENTS, error);
}

static int append_contexts(sd_bus_message *reply, const struct context_list *contexts,
                           const struct conn *conn)
{
	int r = sd_bus_message_open_container(reply, 'e', "sv");

	if (r >= 0)
		r = sd_bus_message_append(reply, "s", "Contexts");
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'v', "as");
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "s");
	for (unsigned i = 0; r >= 0 && i < conn->n_contexts; i++)
		r = sd_bus_message_append(reply, "s", context_name(contexts, conn->contexts[i]));
	for (unsigned i = 0; r >= 0 && i < 3; i++)
		r = sd_bus_message_close_container(reply);
	return r;
}

static int append_client(sd_bus_message *reply, const struct context_list *contexts,
                         const struct admitted *who)
{
	static const char *const modes[] = { "simple", "structured", "extended" };
	const struct conn_stats *stats = &who->seen.stats;
	int r = sd_bus_message_open_container(reply, 'a', "{sv}");

	if (r >= 0)
		r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}",
		                          "Connection", "t", who->connection, "Peer", "s", who->peer,
		                          "Since", "t", who->since, "Mode", "s", modes[who->conn->mode],
		                          "ReadOnly", "b",
		                          (int) !!(who->conn->flags & NBD_FLAG_READ_ONLY));
	if (r >= 0)
		r = sd_bus_message_append(reply, "{sv}{sv}", "TLS", "s", who->conn->tls,
		                          "Identity", "s", who->conn->identity);
	if (r >= 0)
		r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}",
		                          "Requests", "t", stats->n_requests,
		                          "Errors", "t", stats->n_errors,
		                          "BytesRead", "t", stats->bytes_read,
		                          "BytesWritten", "t", stats->bytes_written,
		                          "InFlight", "u", (uint32_t) who->seen.in_flight,
		                          "Memory", "t", who->seen.memory);
	if (r >= 0)
		r = append_contexts(reply, contexts, who->conn);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

int control_reply_clients(struct server *server, sd_bus_message *message)
{
	sd_bus_message *reply = NULL;
	int r = sd_bus_message_new_method_return(message, &reply);

	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "a{sv}");
	for (const struct admitted *who = server->admission.admitted; r >= 0 && who; who = who->next)
		r = append_client(reply, &server->admission.contexts, who);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	if (r < 0)
		r = sd_bus_reply_method_errnof(message, -r, "cannot answer with the clients");
	sd_bus_message_unref(reply);
	return r;
}

static int kick(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	const struct admitted *who;
	char caller[CONTROL_CALLER_SIZE];
	uint64_t connection;
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	r = sd_bus_message_read(message, "t", &connection);
	if (r < 0)
		return r;
	who = admit_find(&server->admission, connection);
	if (!who)
		return sd_bus_error_setf(error, CONTROL_ERROR_NO_SUCH_CONNECTION,
		                         "there is no connection %" PRIu64, connection);
	r = conn_kick(who->conn->loop, connection, REASON_KICKED);
	if (r < 0)
		return r;
	log_event(EVENT_CLIENT_KICKED, &(struct subject) { .client = who->peer,
	          .connection = connection }, "connection %" PRIu64 " is closed by %s", connection,
	          control_caller(message, caller));
	return sd_bus_reply_method_return(message, NULL);
}

static int drain(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	char caller[CONTROL_CALLER_SIZE];
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	if (server->leaving)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the export is being stopped");
	if (server->state == STATE_DRAINED)
		return sd_bus_reply_method_return(message, NULL);
	r = control_defer(server, message, WAITS_FOR_DRAIN, error);
	if (r >= 0 && server->state == STATE_SERVING)
		server_drain(server, control_caller(message, caller));
	return r;
}

/* For who stops it only while nobody uses it: between his look and a Drain somebody may come in. */
static int drain_idle(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	const struct server *server = userdata;
	unsigned n = server->admission.n_slots;

	if (n > 0)
		return sd_bus_error_set_errnof(error, EBUSY, "it has %u client%s", n,
		                               n == 1 ? "" : "s");
	return drain(message, userdata, error);
}

static int resume(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	char caller[CONTROL_CALLER_SIZE];
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	if ((server->state != STATE_DRAINED && server->state != STATE_DRAINING) || server->leaving)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the export is not drained: "
		                         "it is %s", state_word(server->state));
	server_resume(server, control_caller(message, caller));
	return sd_bus_reply_method_return(message, NULL);
}

static int clear_error(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	struct latch *latch = &server->export.latch;
	char caller[CONTROL_CALLER_SIZE], reason[LATCH_REASON_SIZE];
	struct failure why = { 0 };
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	latch_reason(latch, reason);
	if (!latch->set)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "no flush has failed");
	if (latch_clear(latch, &why) < 0)
		return sd_bus_error_setf(error, CONTROL_ERROR_FAILED, "%s", why.text);
	log_event(EVENT_FLUSH_CLEARED, NULL, "cleared by %s: %s.  FLUSH and FUA work again",
	          control_caller(message, caller), reason);
	pulse_soon(server);
	return sd_bus_reply_method_return(message, "s", reason);
}

/* In time, before the signal that has it leave. */
static int machine_stops(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	tracker_machine_stops(server->export.tracker);
	return sd_bus_reply_method_return(message, NULL);
}

static int reload(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	int r = control_check_change(message, "export", error);

	if (r < 0)
		return r;
	if (server->leaving)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the export is being stopped");
	r = control_defer(server, message, server->reload.runs ? WAITS_FOR_NEXT_RELOAD :
	                                                        WAITS_FOR_RELOAD, error);
	if (r >= 0)
		reload_begin(server);
	return r;
}

#define CONSTANT(name, type, get) \
	SD_BUS_PROPERTY(name, type, get, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CURRENT(name, type, get) SD_BUS_PROPERTY(name, type, get, 0, 0)

/* All are "unprivileged" to sd-bus: control_check_change() is what decides. */
#define METHOD(name, in, out, handler) \
	SD_BUS_METHOD(name, in, out, handler, SD_BUS_VTABLE_UNPRIVILEGED)

const sd_bus_vtable control_vtable[] = {
	SD_BUS_VTABLE_START(0),
	CONSTANT("Label", "s", get_label),
	CURRENT("Name", "s", get_name),
	CONSTANT("Device", "s", get_device),
	CURRENT("Description", "s", get_description),
	CURRENT("State", "s", get_state),
	CURRENT("StateReason", "s", get_state_reason),
	CURRENT("Size", "t", get_size),
	CURRENT("ReadOnly", "b", get_read_only),
	CONSTANT("Shared", "b", get_shared),
	CONSTANT("Direct", "b", get_direct),
	CONSTANT("Rotational", "b", get_rotational),
	CONSTANT("WriteCache", "b", get_write_cache),
	CONSTANT("CanDiscard", "b", get_can_discard),
	CONSTANT("Sector", "u", get_sector),
	CONSTANT("PhysicalBlock", "u", get_physical_block),
	CONSTANT("OptimalIO", "u", get_optimal_io),
	CONSTANT("Engine", "s", get_engine),
	CONSTANT("Threads", "u", get_threads),
	CONSTANT("Memory", "t", get_memory),
	CURRENT("MemoryUsed", "t", get_memory_used),
	CURRENT("MaxConnections", "u", get_max_connections),
	CURRENT("Connections", "u", get_connections),
	CURRENT("Requests", "t", get_requests),
	CURRENT("Errors", "t", get_errors),
	CURRENT("BytesRead", "t", get_bytes_read),
	CURRENT("BytesWritten", "t", get_bytes_written),
	CONSTANT("Since", "t", get_since),
	CURRENT("FlushFailed", "s", get_flush_failed),
	CURRENT("BitmapProblem", "s", get_bitmap_problem),
	CURRENT("StuckSince", "t", get_stuck_since),
	METHOD("ListClients", "", "aa{sv}", list_clients),
	METHOD("Kick", "t", "", kick),
	METHOD("Drain", "", "", drain),
	METHOD("DrainIdle", "", "", drain_idle),
	METHOD("Resume", "", "", resume),
	METHOD("ClearError", "", "s", clear_error),
	METHOD("Reload", "", "", reload),
	METHOD("MachineStops", "", "", machine_stops),
	SD_BUS_VTABLE_END,
};
