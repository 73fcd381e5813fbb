/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "export/server.h"

#define CALLS_MAX 64u                   /* more may wait only as root */
#define PATIENCE USEC_PER_SEC           /* with a loop that does not answer */

/* Who waits */

static void drop_wait(struct control *control, struct control_wait **at)
{
	struct control_wait *wait = *at;

	*at = wait->next;
	control->n_calls -= wait->message != NULL;
	sd_bus_message_unref(wait->message);
	free(wait);
}

/* Whoever has left meanwhile needs no answer. */
static void end_wait(struct control *control, struct control_wait **at, const struct failure *why)
{
	struct control_wait *wait = *at;
	sd_bus_message *message = wait->message;

	if (wait->what == WAITS_TO_BE_HEARD)
		control_hear(control->callers, wait->caller);
	else if (why)
		(void) sd_bus_reply_method_errorf(message, CONTROL_ERROR_FAILED, "%s", why->text);
	else if (wait->what == WAITS_FOR_CLIENTS)
		(void) control_reply_clients(control->server, message);
	else
		(void) sd_bus_reply_method_return(message, NULL);
	drop_wait(control, at);
}

static void end_all(struct control *control, enum waits_for what, const struct failure *why)
{
	struct control_wait **at = &control->waits;

	while (*at)
		if ((*at)->what == what)
			end_wait(control, at, why);
		else
			at = &(*at)->next;
}

static int begin_wait(struct control *control, enum waits_for what, sd_bus *caller,
                      sd_bus_message *message)
{
	struct control_wait *wait = calloc(1, sizeof *wait);

	if (!wait)
		return -ENOMEM;
	*wait = (struct control_wait) { control->waits, what, caller,
	                                sd_bus_message_ref(message), 0 };
	control->waits = wait;
	control->n_calls += message != NULL;
	return 0;
}

void control_tell_drained(struct control *control)
{
	const struct export *export = &control->server->export;
	struct failure why = { 0 };

	if (export->device_gone)
		(void) fail_plain(&why, ENODEV, "the device is gone");
	else if (export->last_flush_error)
		(void) fail(&why, export->last_flush_error, "drained, but flushing the device failed");
	end_all(control, WAITS_FOR_DRAIN, why.code ? &why : NULL);
}

void control_tell_resumed(struct control *control, const char *who)
{
	struct failure why = { 0 };

	(void) fail_plain(&why, ECANCELED, "resumed by %s before it was drained", who);
	end_all(control, WAITS_FOR_DRAIN, &why);
}

void control_tell_reloaded(struct control *control, const struct failure *why)
{
	end_all(control, WAITS_FOR_RELOAD, why);
	for (struct control_wait *wait = control->waits; wait; wait = wait->next)
		if (wait->what == WAITS_FOR_NEXT_RELOAD)
			wait->what = WAITS_FOR_RELOAD;
}

/* The census */

static void count_round(struct control *control, bool enough)
{
	struct control_wait **at = &control->waits;

	while (*at)
		if ((*at)->rounds && (--(*at)->rounds == 0 || enough))
			end_wait(control, at, NULL);
		else
			at = &(*at)->next;
}

static bool somebody_waits(const struct control *control)
{
	for (const struct control_wait *wait = control->waits; wait; wait = wait->next)
		if (wait->rounds)
			return true;
	return false;
}

void control_tell_round(struct control *control)
{
	count_round(control, false);
	if (somebody_waits(control))
		(void) census_ask(&control->server->census);
	else
		control->patience = sd_event_source_disable_unref(control->patience);
}

static int on_patience(sd_event_source *source, uint64_t now, void *userdata)
{
	struct control *control = userdata;

	(void) source;
	(void) now;
	control->patience = sd_event_source_disable_unref(control->patience);
	count_round(control, true);
	return 0;
}

/* The newest wait is for a census.  A round that is under way began too early to count. */
static void ask(struct control *control)
{
	struct server *server = control->server;

	control->waits->rounds = server->census.n_out ? 2 : 1;
	(void) census_ask(&server->census);
	if (!control->patience)
		(void) sd_event_add_time_relative(server->event, &control->patience, CLOCK_MONOTONIC,
		                                  PATIENCE, 0, on_patience, control);
}

int control_defer(struct server *server, sd_bus_message *message, enum waits_for what,
                  sd_bus_error *error)
{
	struct control *control = &server->control;
	int r;

	if (control->n_calls >= CALLS_MAX && !control_is_root(message))
		return sd_bus_error_setf(error, CONTROL_ERROR_FAILED, "too many calls are waiting");
	r = begin_wait(control, what, sd_bus_message_get_bus(message), message);
	if (r < 0)
		return r;
	if (what == WAITS_FOR_CLIENTS)
		ask(control);
	return 1;
}

/* Callers */

static int on_arrival(void *userdata, sd_bus *caller)
{
	struct control *control = &((struct server *) userdata)->control;
	int r = sd_bus_add_object_vtable(caller, NULL, CONTROL_PATH, BITMAPS_INTERFACE,
	                                 bitmaps_vtable, userdata);

	if (r >= 0)
		r = begin_wait(control, WAITS_TO_BE_HEARD, caller, NULL);
	if (r == 0)
		ask(control);
	return r;
}

static void on_leave(void *userdata, sd_bus *caller)
{
	struct control *control = &((struct server *) userdata)->control;
	struct control_wait **at = &control->waits;

	while (*at)
		if ((*at)->caller == caller)
			drop_wait(control, at);
		else
			at = &(*at)->next;
	bitmaps_caller_left(control->server, caller);
}

/* Start and end */

int control_start(struct control *control, struct server *server, const char *path,
                  struct failure *why)
{
	int fd, r;

	*control = (struct control) { .server = server };
	if (!path)
		return 0;
	r = control_listen(path, NULL, &fd, why);
	if (r < 0)
		return r;
	control->path = path;
	control->object = (struct control_object) {
		CONTROL_PATH, CONTROL_INTERFACE, control_vtable, server, on_arrival, on_leave,
	};
	return control_serve(server->event, fd, &control->object, &control->callers, why);
}

void control_stop(struct control *control)
{
	if (!control->server)
		return;
	control->patience = sd_event_source_disable_unref(control->patience);
	control_tell_drained(control);
	control_server_free(control->callers);
	control->callers = NULL;
	bitmaps_end(control->server);
	if (control->path)
		(void) unlink(control->path);
	control->path = NULL;
}
