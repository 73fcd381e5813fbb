/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "ctl/control.h"

#define LOAD_PATIENCE (180 * USEC_PER_SEC)    /* generators may be slow; systemctl waits as long */
#define JOB_PATIENCE (200 * USEC_PER_SEC)     /* a stop may flush for 90 s and more */
#define CALL_PATIENCE (25 * USEC_PER_SEC)

#define SYSTEMD "org.freedesktop.systemd1"
#define MANAGER SYSTEMD ".Manager"
#define MANAGER_PATH "/org/freedesktop/systemd1"
#define TEMPLATE "nbd-export@"
#define PRIVATE_SOCKET "unix:path=/run/systemd/private"

/* A job that was asked for, and its end. */
struct job {
	char *path;
	char *result;                   /* NULL until it has ended */
};

static int open_address(const char *address, sd_bus **ret)
{
	AUTO_BUS *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, address);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r >= 0)
		*ret = take_ptr(bus);
	return r;
}

int units_connect(struct units *ret, struct failure *why)
{
	const char *address = getenv("NBD_EXPORT_SYSTEMD");
	int r;

	*ret = (struct units) { 0 };
	if (address) {
		r = open_address(address, &ret->bus);
		return r < 0 ? fail(why, -r, "cannot reach systemd") : 0;
	}
	if (sd_booted() <= 0) {
		ret->absent = true;
		return fail_plain(why, ENOSYS, "systemd does not run this system");
	}
	r = sd_bus_open_system(&ret->bus);
	if (r < 0 && open_address(PRIVATE_SOCKET, &ret->bus) < 0)
		return fail(why, -r, "cannot reach systemd, neither over D-Bus nor over its private "
		            "socket");
	return 0;
}

void units_close(struct units *u)
{
	control_close(&u->bus);
}

static int fail_manager(const char *what, const sd_bus_error *error, int r, struct failure *why)
{
	if (r == -EINVAL || r == -ERANGE)
		r = -EPROTO;                    /* not what the command line has wrong */
	if (error->message && *error->message)
		return fail_plain(why, -r, "%s: systemd says: %s", what, error->message);
	return fail(why, -r, "%s: cannot ask systemd", what);
}

/* `unit`: NULL for a method without arguments; `mode`: NULL without that one. */
static int call_manager(const struct units *u, const char *method, const char *unit,
                        const char *mode, uint64_t patience, sd_bus_message **ret,
                        sd_bus_error *error)
{
	AUTO_MESSAGE *m = NULL;
	int r = sd_bus_message_new_method_call(u->bus, &m, SYSTEMD, MANAGER_PATH, MANAGER, method);

	if (r >= 0 && unit)
		r = sd_bus_message_append(m, "s", unit);
	if (r >= 0 && mode)
		r = sd_bus_message_append(m, "s", mode);
	return r < 0 ? r : sd_bus_call(u->bus, m, patience, error, ret);
}

int units_load(const struct units *u, struct failure *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = call_manager(u, "Reload", NULL, NULL, LOAD_PATIENCE, NULL, &error);

	if (r < 0)
		r = fail_manager("daemon-reload", &error, r, why);
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

/* --- jobs ----------------------------------------------------------------- */

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct job *job = userdata;
	const char *path, *result;
	uint32_t id;

	(void) ret_error;
	if (sd_bus_message_read(m, "uoss", &id, &path, NULL, &result) < 0 || job->result)
		return 0;
	/* While the answer to the request is not there, nothing is known to compare with. */
	if (job->path && strcmp(path, job->path) == 0)
		job->result = strdup(result);
	return 0;
}

/* The signal may have come before the answer: sd-bus keeps it in the queue until then. */
static int await_job(const struct units *u, const struct job *job, const char *unit,
                     struct failure *why)
{
	uint64_t deadline = monotonic_us() + JOB_PATIENCE;

	while (!job->result) {
		uint64_t at = monotonic_us();
		int r = sd_bus_process(u->bus, NULL);

		if (r == 0 && at >= deadline)
			return fail_plain(why, ETIMEDOUT, "%s: systemd's job does not end", unit);
		if (r == 0)
			r = sd_bus_wait(u->bus, deadline - at);
		if (r < 0 && r != -EINTR)
			return fail(why, -r, "%s: systemd's answer is lost", unit);
	}
	return 0;
}

static int judge_job(const struct job *job, const char *unit, struct failure *why)
{
	if (strcmp(job->result, "done") == 0 || strcmp(job->result, "skipped") == 0)
		return 0;
	if (strcmp(job->result, "dependency") == 0)
		return fail_plain(why, EIO, "%s: something that it needs did not start, such as the "
		                  "device's unit (systemctl status %s)", unit, unit);
	return fail_plain(why, EIO, "%s: systemd's job ended with \"%s\" (systemctl status %s)",
	                  unit, job->result, unit);
}

static int request_job(const struct units *u, const char *method, const char *unit,
                       struct job *job, struct failure *why)
{
	AUTO_MESSAGE *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	const char *path = NULL;
	int r;

	(void) call_manager(u, "Subscribe", NULL, NULL, CALL_PATIENCE, NULL, &error);
	sd_bus_error_free(&error);              /* to have subscribed already is no fault */
	r = call_manager(u, method, unit, "replace", CALL_PATIENCE, &reply, &error);
	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r >= 0) {
		job->path = strdup(path);
		r = job->path ? 0 : -ENOMEM;
	}
	if (r < 0)
		r = fail_manager(unit, &error, r, why);
	sd_bus_error_free(&error);
	return r;
}

/* Over the private socket messages have no sender. */
static int watch_jobs(const struct units *u, struct job *job, sd_bus_slot **ret)
{
	return sd_bus_match_signal(u->bus, ret, sd_bus_is_bus_client(u->bus) > 0 ? SYSTEMD : NULL,
	                           MANAGER_PATH, MANAGER, "JobRemoved", on_job_removed, job);
}

static int run_job(const struct units *u, const char *method, const char *unit,
                   struct failure *why)
{
	struct job job = { 0 };
	sd_bus_slot *slot = NULL;
	int r = watch_jobs(u, &job, &slot);

	if (r < 0) {
		r = fail(why, -r, "%s: cannot wait for systemd's jobs", unit);
	} else {
		r = request_job(u, method, unit, &job, why);
		if (r == 0)
			r = await_job(u, &job, unit, why);
		if (r == 0)
			r = judge_job(&job, unit, why);
	}
	sd_bus_slot_unref(slot);
	free(job.path);
	free(job.result);
	return r;
}

int units_start(const struct units *u, const char *unit, struct failure *why)
{
	return run_job(u, "StartUnit", unit, why);
}

int units_stop(const struct units *u, const char *unit, struct failure *why)
{
	char state[32];

	units_state(u, unit, state, sizeof state);
	if (strcmp(state, "inactive") == 0 || strcmp(state, "failed") == 0)
		return 0;
	return run_job(u, "StopUnit", unit, why);
}

void units_reset_failed(const struct units *u, const char *unit)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;

	(void) call_manager(u, "ResetFailedUnit", unit, NULL, CALL_PATIENCE, NULL, &error);
	sd_bus_error_free(&error);
}

/* The reply to this holds the unit's path, and so must stay; NULL when it cannot be told. */
static const char *find_unit(const struct units *u, const char *unit, sd_bus_message **reply)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	const char *path = NULL;

	if (call_manager(u, "LoadUnit", unit, NULL, CALL_PATIENCE, reply, &error) < 0 ||
	    sd_bus_message_read(*reply, "o", &path) < 0)
		path = NULL;
	sd_bus_error_free(&error);
	return path;
}

void units_text(const struct units *u, const char *unit, const char *interface,
                const char *property, char *ret, size_t size)
{
	AUTO_MESSAGE *reply = NULL;
	const char *path = find_unit(u, unit, &reply);
	char whole[64], *text = NULL;

	*ret = '\0';
	(void) snprintf(whole, sizeof whole, SYSTEMD ".%s", interface);
	if (path && sd_bus_get_property_string(u->bus, SYSTEMD, path, whole, property, NULL,
	                                       &text) >= 0)
		(void) snprintf(ret, size, "%s", text);
	free(text);
}

uint32_t units_restarts(const struct units *u, const char *unit)
{
	AUTO_MESSAGE *reply = NULL;
	const char *path = find_unit(u, unit, &reply);
	uint32_t n = 0;

	if (!path || sd_bus_get_property_trivial(u->bus, SYSTEMD, path, SYSTEMD ".Service",
	                                         "NRestarts", NULL, 'u', &n) < 0)
		return 0;
	return n;
}

void units_state(const struct units *u, const char *unit, char *ret, size_t size)
{
	units_text(u, unit, "Unit", "ActiveState", ret, size);
}

static bool is_stopping(sd_bus *bus)
{
	char *state = NULL;
	bool is = sd_bus_get_property_string(bus, SYSTEMD, MANAGER_PATH, MANAGER, "SystemState",
	                                     NULL, &state) >= 0 && strcmp(state, "stopping") == 0;

	free(state);
	return is;
}

bool units_machine_stops(void)
{
	const char *address = getenv("NBD_EXPORT_SYSTEMD");
	AUTO_BUS *bus = NULL;

	/* By systemd's own socket: the system bus may be gone by then. */
	return open_address(address ? address : PRIVATE_SOCKET, &bus) >= 0 && is_stopping(bus);
}

/* --- many ------------------------------------------------------------------ */

/* "nbd-export@web1.socket"; false for what is none of ours. */
static bool take_apart(const char *unit, struct unit_seen *ret)
{
	const char *dot = strrchr(unit, '.');
	size_t len;

	if (strncmp(unit, TEMPLATE, strlen(TEMPLATE)) != 0 || !dot)
		return false;
	unit += strlen(TEMPLATE);
	len = (size_t) (dot - unit);
	ret->is_service = strcmp(dot, ".service") == 0;
	if (len == 0 || len >= sizeof ret->label || (!ret->is_service && strcmp(dot, ".socket")))
		return false;
	memcpy(ret->label, unit, len);
	ret->label[len] = '\0';
	return true;
}

/* 1 for one more unit, 0 at the end, -errno. */
static int read_unit(sd_bus_message *m, struct unit_seen **all, size_t *n)
{
	const char *unit, *state;
	struct unit_seen *more;
	int r = sd_bus_message_read(m, "(ssssssouso)", &unit, NULL, NULL, &state, NULL, NULL, NULL,
	                            NULL, NULL, NULL);

	if (r <= 0)
		return r;
	more = reallocarray(*all, *n + 1, sizeof *more);
	if (!more)
		return -ENOMEM;
	*all = more;
	(void) snprintf(more[*n].state, sizeof more[*n].state, "%s", state);
	*n += take_apart(unit, &more[*n]);
	return 1;
}

static int call_list(const struct units *u, sd_bus_message **ret, sd_bus_error *error)
{
	AUTO_MESSAGE *m = NULL;
	int r = sd_bus_message_new_method_call(u->bus, &m, SYSTEMD, MANAGER_PATH, MANAGER,
	                                       "ListUnitsByPatterns");

	if (r >= 0)
		r = sd_bus_message_append(m, "asas", 0, 1, TEMPLATE "*");
	return r < 0 ? r : sd_bus_call(u->bus, m, CONTROL_PATIENCE, error, ret);
}

int units_list(const struct units *u, struct unit_seen **ret, size_t *ret_n,
               struct failure *why)
{
	AUTO_MESSAGE *reply = NULL;
	AUTO_FREE struct unit_seen *all = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	size_t n = 0;
	int r = call_list(u, &reply, &error);

	if (r >= 0)
		r = sd_bus_message_enter_container(reply, 'a', "(ssssssouso)");
	while (r > 0)
		r = read_unit(reply, &all, &n);
	if (r < 0) {
		r = fail_manager("list of units", &error, r, why);
	} else {
		*ret = take_ptr(all);
		*ret_n = n;
	}
	sd_bus_error_free(&error);
	return r;
}

/* --- what an administrator has set ----------------------------------------- */

static int read_reverted(sd_bus_message *m, const char *unit)
{
	const char *kind, *path;
	int r = sd_bus_message_enter_container(m, 'a', "(sss)");

	while (r > 0) {
		r = sd_bus_message_read(m, "(sss)", &kind, &path, NULL);
		if (r > 0 && strcmp(kind, "unlink") == 0)
			log_notice("removed what was set for %s: %s", unit, path);
	}
	return r;
}

int units_revert(const struct units *u, const char *unit, struct failure *why)
{
	AUTO_MESSAGE *m = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_message_new_method_call(u->bus, &m, SYSTEMD, MANAGER_PATH, MANAGER,
	                                       "RevertUnitFiles");

	if (r >= 0)
		r = sd_bus_message_append(m, "as", 1, unit);
	if (r >= 0)
		r = sd_bus_call(u->bus, m, CALL_PATIENCE, &error, &reply);
	if (r >= 0)
		r = read_reverted(reply, unit);
	if (r < 0)
		r = fail_manager(unit, &error, r, why);
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

/* A label is made of characters that a unit's name may have. */
void units_socket_of(const char *label, char *ret)
{
	(void) snprintf(ret, UNIT_NAME_SIZE, "nbd-export@%s.socket", label);
}

void units_service_of(const char *label, char *ret)
{
	(void) snprintf(ret, UNIT_NAME_SIZE, "nbd-export@%s.service", label);
}
