/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/server.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/service.h"
#include "base/text.h"
#include "export/bitmaps.h"
#include "export/look.h"
#include "export/sandbox.h"

#define IDLE_AGAIN USEC_PER_SEC         /* when somebody asks just as it would end */

static struct server *server_of(struct export *export)
{
	return container_of(export, struct server, export);
}

int server_read_settings(const struct server_options *options, const char *label,
                         struct export_settings *ret, struct failure *why)
{
	AUTO_FREE char *path = NULL;

	if (export_label_check(label, why) < 0)
		return -why->code;
	if (asprintf(&path, "%s/%s.conf", options->exports, label) < 0) {
		path = NULL;
		return fail(why, ENOMEM, "cannot name the settings file");
	}
	return export_settings_read(path, ret, why);
}

/* States */

static void enter(struct server *server, enum export_state state, const char *reason)
{
	server->state = state;
	(void) snprintf(server->state_reason, sizeof server->state_reason, "%s", reason);
	server_look_idle(server);
	pulse_soon(server);
}

/* From any state; the event loop ends when all is drained. */
static void leave(struct server *server, const char *reason)
{
	enum export_state before = server->state;
	bool lost = server->export.device_gone;

	server->leaving = true;
	admit_close(&server->admission, lost ? REASON_DEVICE : REASON_SHUTDOWN,
	            lost ? "the device is gone" : "the export is being stopped");
	enter(server, lost ? STATE_NO_DEVICE : STATE_DRAINING, reason);
	pulse_report(server, "STOPPING=1\n");
	pulse_extend(server);
	if (before == STATE_SERVING)
		export_drain(&server->export, server->admission.closed);
	else if (before == STATE_DRAINED)
		(void) sd_event_exit(server->event, 0);
}

void server_drain(struct server *server, const char *who)
{
	log_event(EVENT_EXPORT_DRAINING, NULL, "drained by %s: finishing what is in flight", who);
	admit_close(&server->admission, REASON_SHUTDOWN, "the export is drained by its administrator");
	enter(server, STATE_DRAINING, "by its administrator");
	export_drain(&server->export, REASON_SHUTDOWN);
}

void server_resume(struct server *server, const char *who)
{
	bool broken_off = server->state == STATE_DRAINING;

	log_event(EVENT_EXPORT_RESUMED, NULL, "resumed by %s%s: clients are admitted again", who,
	          broken_off ? " before it was drained" : "");
	export_resume(&server->export);
	admit_open(&server->admission);
	enter(server, STATE_SERVING, "");
	if (broken_off)
		control_tell_resumed(&server->control, who);
}

/* What took the device away is not coming back: says so once, and leaves. */
static void lose_device(struct server *server, const char *state, const char *detail)
{
	if (server->export.device_gone)
		return;
	server->export.device_gone = true;
	log_event(EVENT_DEVICE_GONE, NULL, "%s is gone%s%s: what was written since the last flush "
	          "may be lost; the export ends until the device is back", server->settings->device,
	          detail ? ": " : "", detail ? detail : "");
	if (server->leaving)
		enter(server, STATE_NO_DEVICE, state);
	else
		leave(server, state);
}

void server_look(struct server *server)
{
	const struct device *dev = &server->export.device;

	if (device_vanished(dev, 0))
		lose_device(server, "the device is gone", NULL);
	else if (device_was_replaced(dev))
		lose_device(server, "the device was replaced", "its disk sequence number is another");
	else if (export_look(&server->export))
		admit_offer_again(&server->admission);
}

/* All clients have left, and the device is flushed, if it could be. */
static void on_drained(struct export *export)
{
	struct server *server = server_of(export);

	server->admission.full = true;
	if (server->leaving) {
		(void) sd_event_exit(server->event, 0);
		return;
	}
	log_event(EVENT_EXPORT_DRAINED, NULL, "drained%s: nobody is admitted until it is resumed",
	          export->last_flush_error ? ", but a flush failed" : "");
	enter(server, STATE_DRAINED, "by its administrator");
	control_tell_drained(&server->control);
}

static void on_gone(struct export *export, struct conn *conn)
{
	admit_gone(&server_of(export)->admission, conn);
}

static void on_bitmaps_changed(struct export *export)
{
	admit_offer_again(&server_of(export)->admission);
}

static void on_device_failed(struct export *export, int error)
{
	if (device_vanished(&export->device, error))
		lose_device(server_of(export), "the device is gone", strerror(error));
	else
		server_look(server_of(export));
}

/* IdleTimeout= */

static int on_idle(sd_event_source *source, uint64_t now, void *userdata)
{
	struct server *server = userdata;

	if (admit_is_asked(&server->admission)) {
		(void) sd_event_source_set_time(source, now + IDLE_AGAIN);
		(void) sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
		return 0;
	}
	log_event(EVENT_EXPORT_IDLE, NULL, "no client for %u s (IdleTimeout=): stops until one asks",
	          server->settings->idle_timeout);
	/* To the negotiators this is no refusal: the next one that wants in starts us again. */
	admit_hang_up(&server->admission);
	leave(server, "no client for IdleTimeout=");
	return 0;
}

void server_look_idle(struct server *server)
{
	bool idle = server->runs && server->state == STATE_SERVING && server->settings->idle_timeout &&
	            server->admission.n_slots == 0;

	if (!idle) {
		server->idle = sd_event_source_disable_unref(server->idle);
		return;
	}
	if (server->idle || sd_event_add_time_relative(server->event, &server->idle, CLOCK_MONOTONIC,
	    server->settings->idle_timeout * USEC_PER_SEC, 0, on_idle, server) < 0)
		return;
	/* Whoever is asking already comes first. */
	(void) sd_event_source_set_priority(server->idle, SD_EVENT_PRIORITY_IDLE);
}

static void on_slots_changed(struct admission *admission)
{
	struct server *server = container_of(admission, struct server, admission);

	server_look_idle(server);
	pulse_soon(server);
}

/* Signals, letters */

static void on_round(struct census *census)
{
	struct server *server = container_of(census, struct server, census);

	pulse_round(server);
	control_tell_round(&server->control);
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;

	(void) source;
	(void) fd;
	(void) events;
	mailbox_empty(&server->export.mail);
	return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct server *server = userdata;

	(void) source;
	if (server->leaving)
		return 0;
	if (device_vanished(&server->export.device, 0)) {       /* BindsTo= stops us for that */
		lose_device(server, "the device is gone", NULL);
		return 0;
	}
	log_event(EVENT_EXPORT_STOPPING, NULL, "%s: finishing what is in flight",
	          strsignal((int) info->ssi_signo));
	leave(server, "the service is being stopped");
	return 0;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	(void) source;
	(void) info;
	reload_begin(userdata);
	return 0;
}

/* Start and end */

/* Before the sandbox: who knows users may have to be asked. */
static int find_trusted(const struct server_options *options, bool *ret_trusts, uid_t *ret,
                        struct failure *why)
{
	const char *name = options->trusted_user;
	const struct passwd *user;

	if (!name)
		return 0;
	errno = 0;
	user = getpwnam(name);
	if (!user && errno)
		return fail(why, errno, "cannot look up the user %s (--trust-user=)", name);
	if (!user)
		return fail_plain(why, ENOENT, "there is no user %s (--trust-user=)", name);
	*ret_trusts = true;
	*ret = user->pw_uid;
	return 0;
}

static int start_export(struct server *server, struct failure *why)
{
	struct device device;
	int r;

	r = device_open(&device, server->settings, why);
	if (r == 0 && server->options->confine) {
		r = sandbox_enter(server->options, server->settings, &device, why);
		if (r < 0)
			device_close(&device);
	}
	if (r < 0)
		return r;
	r = export_init(&server->export, server->settings, &device, why);
	server->export.on_gone = on_gone;
	server->export.on_drained = on_drained;
	server->export.on_device_failed = on_device_failed;
	server->export.on_bitmaps_changed = on_bitmaps_changed;
	return r == 0 ? bitmaps_open(&server->export, why) : r;
}

static int start(struct server *server, int listener, struct failure *why)
{
	struct admission *a = &server->admission;
	bool trusts = false;
	uid_t trusted = 0;
	int r = find_trusted(server->options, &trusts, &trusted, why);

	if (r == 0)
		r = start_export(server, why);
	if (r == 0)
		r = service_watch_signals(server->event, on_stop, on_hangup, server, why);
	if (r == 0)
		r = admit_start(a, &server->export, server->event, listener, why);
	a->trusts = trusts;
	a->trusted = trusted;
	if (r == 0)
		r = census_init(&server->census, a, why);
	server->census.on_round = on_round;
	if (r == 0)
		r = pulse_start(server, why);
	if (r == 0)
		r = control_start(&server->control, server, server->options->control, why);
	if (server->options->control_own_user)
		control_trust_own_user();
	if (r < 0)
		return r;
	r = sd_event_add_io(server->event, NULL, server->export.mail.event, EPOLLIN, on_mail, server);
	if (r < 0)
		return fail(why, -r, "cannot watch for the rings' letters");
	r = export_start(&server->export, why);
	server->runs = r == 0;
	if (server->runs)
		device_events_start(&server->events, server);
	a->on_change = on_slots_changed;
	return r;
}

static void say_ready(struct server *server)
{
	char size[32];

	format_size(server->export.device.size, size, sizeof size);
	log_event(EVENT_EXPORT_STARTED, NULL, "serving %s, %s", server->settings->device, size);
	server->since = real_time_us();
	pulse_report(server, "READY=1\n");
	server_look_idle(server);
	pulse_soon(server);
}

static int run(struct server *server, struct failure *why)
{
	int r;

	say_ready(server);
	r = sd_event_loop(server->event);
	if (r < 0)
		return fail(why, -r, "the event loop ended");
	if (server->export.last_flush_error && !server->export.device_gone)
		return fail_plain(why, EIO, "a flush failed: what was written since the one before it may "
		                  "be lost");
	log_event(EVENT_EXPORT_STOPPED, NULL, "stopped");
	return 0;
}

static void stop(struct server *server)
{
	control_stop(&server->control);
	server->idle = sd_event_source_disable_unref(server->idle);
	pulse_stop(&server->pulse);
	device_events_stop(&server->events);
	admit_stop(&server->admission);
	export_deinit(&server->export);
	reload_clear(&server->reload);
	census_deinit(&server->census);
}

int serve(const struct server_options *options, struct export_settings *settings, int listener,
          struct failure *why)
{
	struct server *server = calloc(1, sizeof *server);
	int r;

	if (!server)
		return fail(why, ENOMEM, "cannot start");
	server->options = options;
	server->settings = settings;
	server->memory = export_settings_memory(settings);
	r = service_new_event(&server->event, why);
	if (r == 0)
		r = start(server, listener, why);
	if (r == 0)
		r = run(server, why);
	if (server->runs)
		stop(server);
	else
		control_stop(&server->control);
	service_end_event(server->event);
	free(server);
	return r;
}
