/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What changes bitmaps: each method a row, its call an edit for the recorder.
 *
 * --force closes the clients that have selected the bitmap and waits until they are gone, so that
 * none of them sees the bitmap become another.
 */
#include "export/control-bitmaps.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "export/bitmap-store.h"
#include "export/control-edit.h"
#include "export/server.h"

#define CALLS_MAX 64u
#define NAMED 8u                        /* clients in a sentence */
#define CLOSING_STEP 5000u              /* microseconds between two looks whether they are gone */
#define CLOSING_PATIENCE 10000000u
#define SHOWN 300                       /* bytes of names in a sentence */

static const struct edit_method methods[] = {
	{ "Add", EDIT_ADD, TAKES_NAME | TAKES_OPTIONS | MAKES, "added" },
	{ "Checkpoint", EDIT_CHECKPOINT, TAKES_NAME | TAKES_OPTIONS | MAKES, "made as a checkpoint" },
	{ "Clear", EDIT_CLEAR, TAKES_NAME | TAKES_OPTIONS, "cleared" },
	{ "Enable", EDIT_ENABLE, TAKES_NAME | TAKES_OPTIONS, "enabled" },
	{ "Disable", EDIT_DISABLE, TAKES_NAME | TAKES_OPTIONS, "disabled" },
	{ "Remove", EDIT_REMOVE, TAKES_NAME | TAKES_OPTIONS, "removed" },
	{ "Rename", EDIT_RENAME, TAKES_NAME | TAKES_OTHER | TAKES_OPTIONS, "renamed" },
	{ "Merge", EDIT_MERGE, TAKES_NAME | TAKES_SOURCES | TAKES_OPTIONS, "merged into" },
	{ "Delta", EDIT_DELTA, TAKES_NAME | TAKES_SOURCES | TAKES_OPTIONS | MAKES, "made as a delta" },
	{ "Resolve", EDIT_RESOLVE, 0, NULL },
	{ "Hold", EDIT_HOLD, 0, NULL },
	{ "Release", EDIT_RELEASE, 0, NULL },
};

/* --- calls ---------------------------------------------------------------- */

int bitmap_call_begin(struct bitmap_call *call, struct server *server, sd_bus_message *message,
                      sd_bus_error *error)
{
	struct bitmap_calls *calls = &server->control.bitmaps;

	if (message && calls->n >= CALLS_MAX)
		return sd_bus_error_setf(error, CONTROL_ERROR_FAILED, "too many calls are waiting");
	if (message) {
		call->caller = sd_bus_message_get_bus(message);
		call->message = sd_bus_message_ref(message);
		(void) control_caller(message, call->who);
	}
	call->server = server;
	call->next = calls->first;
	calls->first = call;
	calls->n++;
	return 0;
}

void bitmap_call_end(struct bitmap_call *call)
{
	struct bitmap_calls *calls = &call->server->control.bitmaps;
	struct bitmap_call **at = &calls->first;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	calls->n--;
	sd_bus_message_unref(call->message);
	call->free(call);
}

static void free_edit(struct bitmap_call *of_edit)
{
	struct edit_call *call = container_of(of_edit, struct edit_call, call);

	sd_event_source_disable_unref(call->closing);
	for (unsigned i = 0; i < call->edit.n_sources; i++)
		free(call->sources[i]);
	free(call->sources);
	free(call);
}

/* --- what became of it ---------------------------------------------------- */

static bool has_selected(const struct admitted *who, uint32_t id)
{
	for (unsigned i = 0; i < who->conn->n_contexts; i++)
		if (who->conn->contexts[i] == id)
			return true;
	return false;
}

static uint32_t find_bitmap(struct tracker *tracker, const char *name, unsigned *ret_n_users)
{
	struct bitmap_info *all = calloc(BITMAPS_MAX, sizeof *all);
	unsigned n = all ? tracker_list(tracker, all) : 0;
	uint32_t id = 0;

	*ret_n_users = 0;
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) != 0)
			continue;
		id = all[i].id;
		*ret_n_users = all[i].n_users;
	}
	free(all);
	return id;
}

/* "192.0.2.1:4711, 192.0.2.2:4712"; how many there are. */
static unsigned name_clients(const struct server *server, uint32_t id, char *ret, size_t size)
{
	unsigned n = 0;

	*ret = '\0';
	for (const struct admitted *who = server->admission.admitted; who; who = who->next) {
		size_t len = strlen(ret);

		if (!has_selected(who, id))
			continue;
		if (n < NAMED)
			(void) snprintf(ret + len, size - len, "%s%s", n ? ", " : "", who->peer);
		else if (n == NAMED)
			(void) snprintf(ret + len, size - len, ", ...");
		n++;
	}
	return n;
}

static void reply_busy(const struct edit_call *call)
{
	struct server *server = call->call.server;
	char names[(NAMED + 1) * (CHANNEL_PEER_MAX + 2)];
	unsigned n_users;
	uint32_t id = find_bitmap(server->export.tracker, call->edit.name, &n_users);
	unsigned n = id ? name_clients(server, id, names, sizeof names) : 0;

	if (n == 0)
		(void) sd_bus_reply_method_errorf(call->call.message, CONTROL_ERROR_BITMAP_BUSY, "%s",
		                                  call->edit.why.text);
	else
		(void) sd_bus_reply_method_errorf(call->call.message, CONTROL_ERROR_BITMAP_BUSY,
		                                  "bitmap %s is in use by %u client%s: %.*s (--force "
		                                  "closes %s first)", call->edit.name, n,
		                                  n == 1 ? "" : "s", SHOWN, names,
		                                  n == 1 ? "it" : "them");
}

static void reply_failure(const struct edit_call *call)
{
	const char *name = call->edit.result == -EEXIST ? CONTROL_ERROR_BITMAP_EXISTS :
	                   call->edit.result == -ENOENT ? CONTROL_ERROR_NO_SUCH_BITMAP :
	                   CONTROL_ERROR_FAILED;

	(void) sd_bus_reply_method_errorf(call->call.message, name, "%s",
	                                  *call->edit.why.text ? call->edit.why.text :
	                                  strerror(-call->edit.result));
}

/* What stands before a source: "merged into: a, b", "made as a delta from a to b". */
static const char *source_words(enum edit_kind kind, unsigned i)
{
	if (kind == EDIT_MERGE)
		return i ? ", " : ": ";
	return i ? " to " : " from ";
}

static void log_done(const struct edit_call *call)
{
	const struct edit *edit = &call->edit;
	const struct subject about = { .bitmap = edit->name };
	char more[SHOWN] = "";

	if (edit->kind == EDIT_RENAME)
		(void) snprintf(more, sizeof more, " to %s", edit->other);
	for (unsigned i = 0; i < edit->n_sources; i++) {
		size_t len = strlen(more);

		(void) snprintf(more + len, sizeof more - len, "%s%s", source_words(edit->kind, i),
		                call->sources[i]);
	}
	log_event(EVENT_BITMAP_CHANGED, &about, "bitmap %s was %s%s by %s", edit->name,
	          edit->group[0] ? "prepared, with other exports, as a checkpoint" : call->method->done,
	          more, call->call.who);
}

static void release_for(struct server *server, const char *who);

static void note_hold(struct edit_call *call)
{
	struct bitmap_calls *calls = &call->call.server->control.bitmaps;

	if (call->edit.kind == EDIT_HOLD && call->call.message)
		calls->holder = call->call.caller;
	else if (call->edit.kind == EDIT_HOLD)
		release_for(call->call.server, "its end");
	else if (call->edit.kind == EDIT_RELEASE)
		calls->holder = NULL;
}

/* The main thread. */
static void on_edited(struct letter *letter)
{
	struct edit_call *call = container_of(letter, struct edit_call, call.letter);
	int result = call->edit.result;

	if (result >= 0 && call->method->done)
		log_done(call);
	if (result >= 0)
		note_hold(call);
	if (!call->call.message)
		;
	else if (result >= 0)
		(void) sd_bus_reply_method_return(call->call.message, NULL);
	else if (result == -EBUSY)
		reply_busy(call);
	else
		reply_failure(call);
	bitmap_call_end(&call->call);
}

/* The recorder's thread. */
static void edit_done(struct edit *edit)
{
	struct edit_call *call = container_of(edit, struct edit_call, edit);

	mailbox_post(&call->call.server->export.mail, &call->call.letter);
}

static void submit(struct edit_call *call)
{
	call->call.letter.open = on_edited;
	call->edit.done = edit_done;
	call->edit.sources = (const char *const *) call->sources;
	tracker_edit(call->call.server->export.tracker, &call->edit);
}

/* --- --force -------------------------------------------------------------- */

static int on_look(sd_event_source *source, uint64_t now, void *userdata)
{
	struct edit_call *call = userdata;
	unsigned n_users;

	(void) now;
	(void) find_bitmap(call->call.server->export.tracker, call->edit.name, &n_users);
	if (n_users && monotonic_ns() < call->closing_until &&
	    sd_event_source_set_time_relative(source, CLOSING_STEP) >= 0 &&
	    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) >= 0)
		return 0;
	call->closing = sd_event_source_disable_unref(call->closing);
	submit(call);
	return 0;
}

static unsigned close_clients(struct server *server, uint32_t id, const struct edit_call *call)
{
	unsigned n = 0;

	for (const struct admitted *who = server->admission.admitted; id && who; who = who->next) {
		if (!has_selected(who, id) ||
		    conn_kick(who->conn->loop, who->connection, REASON_KICKED) < 0)
			continue;
		log_event(EVENT_CLIENT_KICKED, &(struct subject) { .client = who->peer,
		          .connection = who->connection, .bitmap = call->edit.name },
		          "connection %" PRIu64 " is closed by %s, for what bitmap %s shows changes",
		          who->connection, call->call.who, call->edit.name);
		n++;
	}
	return n;
}

/* Submits once nobody uses the bitmap. */
static void force(struct edit_call *call)
{
	struct server *server = call->call.server;
	unsigned n_users;
	uint32_t id = find_bitmap(server->export.tracker, call->edit.name, &n_users);

	call->closing_until = monotonic_ns() + CLOSING_PATIENCE * UINT64_C(1000);
	if (close_clients(server, id, call) == 0 ||
	    sd_event_add_time_relative(server->event, &call->closing, CLOCK_MONOTONIC, CLOSING_STEP, 1,
	                               on_look, call) < 0)
		submit(call);
}

/* --- checks, and the call itself ------------------------------------------ */

static int check_hold(const struct edit_call *call, const struct bitmap_calls *calls,
                      sd_bus_message *m, sd_bus_error *error)
{
	const sd_bus *caller = sd_bus_message_get_bus(m);
	bool ours = calls->holder == caller;

	if (call->edit.kind == EDIT_HOLD && calls->holder && !ours)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "another connection holds the "
		                         "export already");
	if ((call->edit.kind == EDIT_RELEASE || call->edit.held) && !ours)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "this connection does not hold "
		                         "the export");
	return 0;
}

/* The folder of a store that may have to be made. */
static int prepare_store(const struct edit_call *call, struct server *server, sd_bus_error *error)
{
	struct failure why = { 0 };
	char path[PATH_MAX];

	if (!(call->method->takes & MAKES))
		return 0;
	if (bitmap_store_path(server->settings, path, &why) < 0 ||
	    bitmap_store_make_folder(server->settings, path, &why) < 0)
		return sd_bus_error_setf(error, CONTROL_ERROR_FAILED, "%s", why.text);
	return 0;
}

static const struct edit_method *find_method(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (strcmp(methods[i].name, name) == 0)
			return &methods[i];
	return NULL;
}

static int begin(struct edit_call *call, struct server *server, sd_bus_message *m,
                 sd_bus_error *error)
{
	int r = edit_call_read(call, m, error);

	if (r >= 0 && !server->export.tracker)
		r = sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the export keeps no bitmaps");
	if (r >= 0 && server->export.device.size > server->export.tracked_size &&
	    (call->edit.kind == EDIT_ADD || call->edit.kind == EDIT_CHECKPOINT))
		r = sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the device has grown since the "
		                      "export was started: restart the export first");
	if (r >= 0 && server->leaving && call->edit.kind != EDIT_RELEASE)
		r = sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "the export is being stopped");
	if (r >= 0)
		r = check_hold(call, &server->control.bitmaps, m, error);
	if (r >= 0)
		r = prepare_store(call, server, error);
	return r < 0 ? r : bitmap_call_begin(&call->call, server, m, error);
}

static int edit(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	const struct edit_method *method = find_method(sd_bus_message_get_member(m));
	struct edit_call *call;
	int r = control_check_change(m, "export", error);

	if (r < 0)
		return r;
	call = method ? calloc(1, sizeof *call) : NULL;
	if (!call)
		return -ENOMEM;
	call->method = method;
	call->call.free = free_edit;
	call->edit.kind = method->kind;
	r = begin(call, server, m, error);
	if (r < 0) {
		free_edit(&call->call);
		return r;
	}
	if (call->edit.force)
		force(call);
	else
		submit(call);
	return 1;
}

/* --- callers that leave, and the end -------------------------------------- */

static void release_for(struct server *server, const char *who)
{
	struct edit_call *call = calloc(1, sizeof *call);
	sd_bus_error ignored = SD_BUS_ERROR_NULL;

	server->control.bitmaps.holder = NULL;
	if (!call)                              /* the tracker lets go by itself, after a while */
		return;
	call->method = find_method("Release");
	call->call.free = free_edit;
	call->edit.kind = EDIT_RELEASE;
	(void) bitmap_call_begin(&call->call, server, NULL, &ignored);
	(void) snprintf(call->call.who, sizeof call->call.who, "%s", who);
	submit(call);
}

void bitmaps_caller_left(struct server *server, const sd_bus *caller)
{
	struct bitmap_calls *calls = &server->control.bitmaps;

	for (struct bitmap_call *call = calls->first; call; call = call->next) {
		if (call->caller != caller)
			continue;
		call->caller = NULL;
		call->message = sd_bus_message_unref(call->message);
	}
	if (calls->holder == caller)
		release_for(server, "its end");
}

/* Those that wait for clients to go need not wait any more: the loops have ended. */
void bitmaps_end(struct server *server)
{
	const struct bitmap_calls *calls = &server->control.bitmaps;

	for (struct bitmap_call *call = calls->first, *next; call; call = next) {
		struct edit_call *of_edit = container_of(call, struct edit_call, call);

		next = call->next;
		if (call->free != free_edit || !of_edit->closing)
			continue;
		of_edit->closing = sd_event_source_disable_unref(of_edit->closing);
		submit(of_edit);
	}
	while (calls->n) {
		struct pollfd mail = { .fd = server->export.mail.event, .events = POLLIN };

		if (poll(&mail, 1, -1) >= 0 || errno == EINTR)
			mailbox_empty(&server->export.mail);
	}
}

/* All are "unprivileged" to sd-bus: control_check_change() is what decides. */
#define METHOD(name, in, out, handler) \
	SD_BUS_METHOD(name, in, out, handler, SD_BUS_VTABLE_UNPRIVILEGED)

const sd_bus_vtable bitmaps_vtable[] = {
	SD_BUS_VTABLE_START(0),
	METHOD("Add", "sa{sv}", "", edit),
	METHOD("Checkpoint", "sa{sv}", "", edit),
	METHOD("Clear", "sa{sv}", "", edit),
	METHOD("Enable", "sa{sv}", "", edit),
	METHOD("Disable", "sa{sv}", "", edit),
	METHOD("Remove", "sa{sv}", "", edit),
	METHOD("Rename", "ssa{sv}", "", edit),
	METHOD("Merge", "sasa{sv}", "", edit),
	METHOD("Delta", "sasa{sv}", "", edit),
	METHOD("Resolve", "", "", edit),
	METHOD("Hold", "", "", edit),
	METHOD("Release", "", "", edit),
	METHOD("List", "", "aa{sv}", bitmaps_list),
	METHOD("Extents", "sstt", "a(tt)t", bitmaps_extents),
	METHOD("Map", "su", "tat", bitmaps_map),
	METHOD("Status", "", "a{sv}", bitmaps_status),
	SD_BUS_VTABLE_END,
};
