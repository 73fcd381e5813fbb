/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/pulse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "export/server.h"

#define PERIOD (3 * USEC_PER_SEC)
#define SOON (USEC_PER_SEC / 2)
#define ACCURACY (USEC_PER_SEC / 10)
#define STUCK_SECONDS 10u
#define DEAF_SECONDS 10u
#define EXTENSION "EXTEND_TIMEOUT_USEC=30000000"

void pulse_report(struct server *server, const char *first)
{
	struct conn_stats all = admit_totals(&server->admission);
	struct pulse *pulse = &server->pulse;
	struct report report = {
		.state = server->state,
		.n_clients = admit_count(&server->admission),
		.bytes_read = all.bytes_read,
		.bytes_written = all.bytes_written,
		.flush_failed = server->export.latch.set,
		.settings_kept = server->reload.kept,
	};
	char text[REPORT_SIZE];

	if (pulse->stuck_since)
		report.stuck_seconds = (real_time_us() - pulse->stuck_since) / USEC_PER_SEC;
	report_format(&report, text, sizeof text);
	if (!*first && strcmp(text, pulse->said) == 0)
		return;
	notify("%sSTATUS=%s", first, text);
	memcpy(pulse->said, text, sizeof text);
}

static void feed(struct server *server)
{
	if (server->pulse.watchdog)
		notify("WATCHDOG=1");
	server->pulse.deaf_told = false;
}

/* One entry when it begins, and one when it is over. */
static void look_whether_stuck(struct server *server)
{
	uint64_t oldest = census_oldest(&server->census);
	uint64_t age = oldest ? monotonic_ns() - oldest : 0;
	struct pulse *pulse = &server->pulse;

	if (age >= STUCK_SECONDS * NSEC_PER_SEC && !pulse->stuck_since) {
		pulse->stuck_since = real_time_us() - age / 1000;
		log_event(EVENT_DEVICE_STUCK, NULL, "%s has not answered for %u s; its clients wait",
		          server->settings->device, STUCK_SECONDS);
	} else if (age < STUCK_SECONDS * NSEC_PER_SEC && pulse->stuck_since) {
		log_event(EVENT_DEVICE_UNSTUCK, NULL, "%s answers again, after %" PRIu64 " s",
		          server->settings->device,
		          (real_time_us() - pulse->stuck_since) / USEC_PER_SEC);
		pulse->stuck_since = 0;
	}
}

void pulse_round(struct server *server)
{
	feed(server);
	look_whether_stuck(server);
	pulse_report(server, "");
}

/* The last round is not over: whose fault is that? */
static void look_whether_deaf(struct server *server)
{
	struct pulse *pulse = &server->pulse;

	if (census_excused(&server->census)) {
		feed(server);
	} else if (!pulse->deaf_told &&
	           monotonic_ns() - server->census.began > DEAF_SECONDS * NSEC_PER_SEC) {
		pulse->deaf_told = true;
		log_warning("a request loop has not answered for %u s%s", DEAF_SECONDS,
		            pulse->watchdog ? "; the watchdog is not fed" : "");
	}
	look_whether_stuck(server);
	pulse_report(server, "");
}

void pulse_extend(struct server *server)
{
	if (server->leaving)
		notify(EXTENSION);
}

/* 0: nothing goes on that wants watching. */
static uint64_t period(const struct server *server)
{
	uint64_t watchdog = server->pulse.watchdog;
	bool busy = server->leaving || server->state == STATE_DRAINING ||
	            server->admission.n_slots || control_n_callers(server->control.callers) ||
	            server->pulse.stuck_since;

	if (!busy)
		return watchdog;
	return watchdog && watchdog < PERIOD ? watchdog : PERIOD;
}

static int on_time(sd_event_source *source, uint64_t now, void *userdata)
{
	struct server *server = userdata;
	uint64_t next;

	if (server->census.n_out)
		look_whether_deaf(server);
	else
		(void) census_ask(&server->census);
	server_look(server);
	pulse_extend(server);
	next = period(server);
	(void) sd_event_source_set_time(source, now + next);
	(void) sd_event_source_set_enabled(source, next ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	return 0;
}

void pulse_soon(struct server *server)
{
	sd_event_source *timer = server->pulse.timer;
	uint64_t now, when;
	int enabled = SD_EVENT_OFF;

	if (!timer || sd_event_now(server->event, CLOCK_MONOTONIC, &now) < 0)
		return;
	(void) sd_event_source_get_enabled(timer, &enabled);
	if (enabled != SD_EVENT_OFF && sd_event_source_get_time(timer, &when) >= 0 &&
	    when <= now + SOON)
		return;
	(void) sd_event_source_set_time(timer, now + SOON);
	(void) sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

int pulse_start(struct server *server, struct failure *why)
{
	struct pulse *pulse = &server->pulse;
	uint64_t watchdog = 0;
	int r;

	if (sd_watchdog_enabled(false, &watchdog) > 0)
		pulse->watchdog = watchdog / 4;
	r = sd_event_add_time_relative(server->event, &pulse->timer, CLOCK_MONOTONIC, 0, ACCURACY,
	                               on_time, server);
	return r < 0 ? fail(why, -r, "cannot watch the time") : 0;
}

void pulse_stop(struct pulse *pulse)
{
	pulse->timer = sd_event_source_disable_unref(pulse->timer);
}
