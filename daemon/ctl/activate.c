/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/activate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/control.h"
#include "ctl/running.h"
#include "ctl/units.h"

#define CONTAINER "/run/systemd/container"      /* there where systemd has found itself in one */

/* A running export takes up at once what it can. */
static int reload_running(const struct places *p, const char *label, struct failure *why)
{
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	int r = running_connect(p, label, &bus, &cause);

	if (r == -ENOTCONN || r == -ENOENT)
		return 0;
	if (r < 0)
		*why = cause;
	return r < 0 ? r : control_call(bus, CONTROL_EXPORT(label), "Reload", NULL,
	                                CONTROL_PATIENCE, NULL, why);
}

static int reload_negotiator(const struct places *p, struct failure *why)
{
	int r = running_negotiator_reload(p, why);

	return r < 0 ? r : 0;
}

static void check_negotiator(const struct units *u)
{
	char state[32];

	units_state(u, NEGOTIATOR_SOCKET, state, sizeof state);
	if (strcmp(state, "active") != 0)
		log_notice("nobody listens for clients yet: systemctl enable --now "
		           NEGOTIATOR_SOCKET);
}

/* systemd would wait for the device's unit, a minute and a half, and then say that it timed out.  It
 * starts the socket by itself when the device comes, where devices have units. */
static bool waits_for_device(const struct export_settings *s)
{
	return strncmp(s->device, "/dev/", 5) == 0 && access(s->device, F_OK) < 0 &&
	       errno == ENOENT && access(CONTAINER, F_OK) < 0;
}

/* `service`: that too, not only what lets clients start it. */
static int start_units(const struct units *u, const struct export_settings *s, bool service,
                       struct failure *why)
{
	char unit[UNIT_NAME_SIZE];
	int r;

	if (waits_for_device(s)) {
		log_notice("%s: there is no %s; clients can come once it is there", s->label,
		           s->device);
		return 0;
	}
	units_socket_of(s->label, unit);
	r = units_start(u, unit, why);
	units_service_of(s->label, unit);
	if (r == 0 && service)
		r = units_start(u, unit, why);
	return r;
}

/* For settings that a running one cannot take up; its socket starts it again. */
static int stop_service(const struct units *u, const char *label, struct failure *why)
{
	char unit[UNIT_NAME_SIZE];

	units_service_of(label, unit);
	return units_stop(u, unit, why);
}

/* What is left to do by hand, since systemd could not be asked. */
static int fail_left(const char *label, bool anew, const struct failure *cause,
                     struct failure *why)
{
	char stop[UNIT_NAME_SIZE + 32] = "";

	if (anew)
		(void) snprintf(stop, sizeof stop, "systemctl stop nbd-export@%s.service; ", label);
	return fail_plain(why, cause->code, "%s; so nothing was started.  What is left to do: "
	                  "systemctl daemon-reload; %ssystemctl start nbd-export@%s.socket; "
	                  "systemctl try-reload-or-restart nbd-negotiator.service",
	                  cause->text, stop, label);
}

int activate(const struct places *p, const struct export_settings *s, bool anew,
             struct failure *why)
{
	struct failure cause = { 0 };
	struct units u;
	int r;

	if (!p->of_units) {
		r = reload_running(p, s->label, why);
		return r < 0 ? r : reload_negotiator(p, why);
	}
	if (units_connect(&u, &cause) < 0)
		return fail_left(s->label, anew, &cause, why);
	r = units_load(&u, why);
	if (r == 0 && anew)
		r = stop_service(&u, s->label, why);
	if (r == 0)
		r = start_units(&u, s, s->start_at_boot, why);
	if (r == 0)
		r = reload_running(p, s->label, why);
	if (r == 0)
		r = reload_negotiator(p, why);
	if (r == 0)
		check_negotiator(&u);
	units_close(&u);
	return r;
}

/* Of those that clients can start already only what has failed: others were stopped, or have been
 * idle, and stay so. */
static bool starts_now(const struct units *u, const struct export_settings *s)
{
	char unit[UNIT_NAME_SIZE], state[32];

	if (!s->start_at_boot)
		return false;
	units_socket_of(s->label, unit);
	units_state(u, unit, state, sizeof state);
	if (strcmp(state, "active") != 0)
		return true;
	units_service_of(s->label, unit);
	units_state(u, unit, state, sizeof state);
	return strcmp(state, "failed") == 0;
}

/* `u`: NULL without units.  How many could not be. */
static size_t activate_each(const struct places *p, const struct files *files,
                            const struct units *u)
{
	size_t n_failed = 0;

	for (size_t i = 0; i < files->n_good; i++) {
		const struct export_settings *s = &files->good[i];
		struct failure why = { 0 };

		if ((u && start_units(u, s, starts_now(u, s), &why) < 0) ||
		    reload_running(p, s->label, &why) < 0) {
			log_error("%s", why.text);
			n_failed++;
		}
	}
	return n_failed;
}

int activate_all(const struct places *p, const struct files *files, struct failure *why)
{
	struct units u = { .bus = NULL };
	size_t n_failed;
	int r = 0;

	if (p->of_units) {
		r = units_connect(&u, why);
		if (r == 0)
			r = units_load(&u, why);
		if (r < 0) {
			units_close(&u);
			return r;
		}
	}
	n_failed = activate_each(p, files, p->of_units ? &u : NULL);
	r = reload_negotiator(p, why);
	if (r == 0 && n_failed > 0)
		r = fail_plain(why, EIO, "%zu export%s could not be reloaded", n_failed,
		               n_failed == 1 ? "" : "s");
	if (r == 0 && u.bus)
		check_negotiator(&u);
	units_close(&u);
	return r;
}

static void forget(const struct units *u, const char *unit)
{
	struct failure why = { 0 };

	if (units_revert(u, unit, &why) < 0)
		log_warning("%s; what was set for it stays, and the next export of that label has "
		            "it: systemctl revert %s", why.text, unit);
}

static int stop_units(const struct units *u, const char *label, bool for_good,
                      struct failure *why)
{
	char socket[UNIT_NAME_SIZE], service[UNIT_NAME_SIZE];
	int r;

	units_socket_of(label, socket);
	units_service_of(label, service);
	r = units_stop(u, socket, why);
	if (r == 0)
		r = units_stop(u, service, why);
	units_reset_failed(u, socket);
	units_reset_failed(u, service);
	if (r == 0 && for_good) {
		forget(u, service);
		forget(u, socket);
	}
	if (r == 0)
		r = units_load(u, why);
	return r;
}

/* Without units there is nobody to stop it but who started it. */
static int check_stopped(const struct places *p, const char *label, struct failure *why)
{
	struct failure ignored = { 0 };
	AUTO_BUS *bus = NULL;
	int r = running_connect(p, label, &bus, &ignored);

	if (r == 0)
		return fail_plain(why, EBUSY, "%s still runs, until whoever started it stops it",
		                  label);
	return 0;
}

int deactivate(const struct places *p, const char *label, bool for_good, struct failure *why)
{
	struct failure cause = { 0 };
	struct units u;
	int r;

	if (!p->of_units) {
		r = reload_negotiator(p, why);
		return r < 0 ? r : check_stopped(p, label, why);
	}
	if (units_connect(&u, &cause) < 0)
		return fail_plain(why, cause.code, "%s; so nothing was stopped.  What is left to "
		                  "do: systemctl stop nbd-export@%s.socket nbd-export@%s.service; "
		                  "systemctl daemon-reload; "
		                  "systemctl try-reload-or-restart nbd-negotiator.service",
		                  cause.text, label, label);
	r = stop_units(&u, label, for_good, why);
	if (r == 0)
		r = reload_negotiator(p, why);
	units_close(&u);
	return r;
}
