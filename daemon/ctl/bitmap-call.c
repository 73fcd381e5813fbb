/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/bitmap-call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "ctl/running.h"
#include "ctl/units.h"

#define PATIENCE UINT64_C(120000000)    /* microseconds: a flush may take its time */
#define BITMAPS(label) \
	(&(struct control_peer) { (label), "/org/nbd_export/export", "org.nbd_export.Bitmaps1" })

/* --- the connection ------------------------------------------------------- */

static int start_service(const char *label, struct failure *why)
{
	char unit[UNIT_NAME_SIZE];
	struct units units;
	int r = units_connect(&units, why);

	if (r == 0) {
		units_service_of(label, unit);
		r = units_start(&units, unit, why);
	}
	units_close(&units);
	return r;
}

int bitmap_connect(const struct places *p, const char *label, sd_bus **ret, struct failure *why)
{
	struct failure cause = { 0 }, no_start = { 0 };
	int r = running_connect(p, label, ret, &cause);

	if (r == -ENOTCONN && p->of_units) {
		if (start_service(label, &no_start) < 0)
			return fail_plain(why, no_start.code, "%s does not run, and cannot be started: %s",
			                  label, no_start.text);
		return running_connect(p, label, ret, why);
	}
	if (r < 0)
		*why = cause;
	return r;
}

/* Sends the call, which must not be NULL, and takes the answer. */
static int finish(sd_bus *bus, const char *label, const char *method, sd_bus_message *m,
                  sd_bus_message **ret, struct failure *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call(bus, m, PATIENCE, &error, ret);

	if (r < 0)
		r = control_fail_call(BITMAPS(label), method, &error, r, why);
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

static int fail_talk(const char *label, int r, struct failure *why)
{
	return fail(why, r == -EINVAL || r == -ERANGE ? EPROTO : -r, "cannot talk to %s", label);
}

/* --- changes -------------------------------------------------------------- */

static int append_flag(sd_bus_message *m, const char *name, bool flag)
{
	return flag ? sd_bus_message_append(m, "{sv}", name, "b", 1) : 0;
}

static int append_options(sd_bus_message *m, const struct bitmap_edit *edit)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0 && edit->granularity)
		r = sd_bus_message_append(m, "{sv}", "Granularity", "t", edit->granularity);
	if (r >= 0)
		r = append_flag(m, "Disabled", edit->disabled);
	if (r >= 0)
		r = append_flag(m, "Force", edit->force);
	if (r >= 0)
		r = append_flag(m, "Held", edit->held);
	if (r >= 0 && edit->group)
		r = sd_bus_message_append(m, "{sv}", "Group", "s", edit->group);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

int bitmap_edit(sd_bus *bus, const char *label, const struct bitmap_edit *edit,
                struct failure *why)
{
	AUTO_MESSAGE *m = NULL;
	int r = control_new_call(bus, BITMAPS(label), edit->method, &m);

	if (r >= 0)
		r = sd_bus_message_append(m, "s", edit->name);
	if (r >= 0 && edit->other)
		r = sd_bus_message_append(m, "s", edit->other);
	if (r >= 0 && edit->sources)
		r = sd_bus_message_append_strv(m, (char **) edit->sources);
	if (r >= 0)
		r = append_options(m, edit);
	return r < 0 ? fail_talk(label, r, why) : finish(bus, label, edit->method, m, NULL, why);
}

static int call_plain(sd_bus *bus, const char *label, const char *method, sd_bus_message **ret,
                      struct failure *why)
{
	return control_call(bus, BITMAPS(label), method, NULL, PATIENCE, ret, why);
}

int bitmap_hold(sd_bus *bus, const char *label, struct failure *why)
{
	return call_plain(bus, label, "Hold", NULL, why);
}

int bitmap_resolve(sd_bus *bus, const char *label, struct failure *why)
{
	return call_plain(bus, label, "Resolve", NULL, why);
}

int bitmap_release(sd_bus *bus, const char *label, struct failure *why)
{
	return call_plain(bus, label, "Release", NULL, why);
}

/* --- List ----------------------------------------------------------------- */

#define ROW_FIELD(name, type, member) { name, type, offsetof(struct bitmap_row, member) }

static const struct control_field row_fields[] = {
	ROW_FIELD("Name", 's', name),
	ROW_FIELD("State", 's', state),
	ROW_FIELD("Reason", 's', reason),
	ROW_FIELD("DirtyBytes", 't', dirty),
	ROW_FIELD("Size", 't', size),
	ROW_FIELD("Created", 't', created),
	ROW_FIELD("Since", 't', since),
	ROW_FIELD("Granularity", 'u', granularity),
	ROW_FIELD("Clients", 'u', clients),
	ROW_FIELD("Everything", 'b', everything),
	ROW_FIELD("Checkpoint", 'b', checkpoint),
};

void bitmap_row_clear(struct bitmap_row *row)
{
	free(row->name);
	free(row->state);
	free(row->reason);
	*row = (struct bitmap_row) { 0 };
}

void bitmap_rows_free(struct bitmap_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bitmap_row_clear(&rows[i]);
	free(rows);
}

/* 1 for one more, 0 at the end, -errno. */
static int read_row(sd_bus_message *m, struct bitmap_row **rows, size_t *n)
{
	struct bitmap_row row = { 0 };
	struct bitmap_row *more;
	int r = control_read_dictionary(m, row_fields, ARRAY_LEN(row_fields), &row);

	if (r > 0 && !row.name)
		r = -EBADMSG;
	if (r > 0) {
		more = reallocarray(*rows, *n + 1, sizeof *more);
		if (more) {
			*rows = more;
			more[(*n)++] = row;
			return 1;
		}
		r = -ENOMEM;
	}
	bitmap_row_clear(&row);
	return r;
}

int bitmap_list(sd_bus *bus, const char *label, struct bitmap_row **ret, size_t *ret_n,
                struct failure *why)
{
	AUTO_MESSAGE *m = NULL;
	struct bitmap_row *rows = NULL;
	size_t n = 0;
	int r = call_plain(bus, label, "List", &m, why);

	if (r < 0)
		return r;
	r = sd_bus_message_enter_container(m, 'a', "a{sv}");
	while (r > 0)
		r = read_row(m, &rows, &n);
	if (r < 0) {
		bitmap_rows_free(rows, n);
		return fail(why, -r, "cannot understand %s's list of bitmaps", label);
	}
	*ret = rows;
	*ret_n = n;
	return 0;
}

int bitmap_find(sd_bus *bus, const char *label, const char *name, struct bitmap_row *ret,
                struct failure *why)
{
	struct bitmap_row *rows;
	size_t n;
	int r = bitmap_list(bus, label, &rows, &n, why);

	if (r < 0)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < n; i++) {
		if (r == 0 || strcmp(rows[i].name, name) != 0)
			continue;
		*ret = rows[i];
		rows[i] = (struct bitmap_row) { 0 };
		r = 0;
	}
	bitmap_rows_free(rows, n);
	return r < 0 ? fail_plain(why, ENOENT, "%s: there is no bitmap %.200s", label, name) : 0;
}

/* --- Extents, Map, Status ------------------------------------------------- */

static int read_extents(sd_bus_message *m, void (*each)(void *, uint64_t, uint64_t),
                        void *userdata, uint64_t *ret_next)
{
	uint64_t start, length;
	int r = sd_bus_message_enter_container(m, 'a', "(tt)");

	while (r >= 0 && (r = sd_bus_message_read(m, "(tt)", &start, &length)) > 0)
		each(userdata, start, length);
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return r < 0 ? r : sd_bus_message_read(m, "t", ret_next);
}

/* A stretch that goes on in the next answer, or has just grown together, is told as one. */
struct joiner {
	void (*each)(void *userdata, uint64_t start, uint64_t length);
	void *userdata;
	uint64_t start, length;
};

static void join(void *userdata, uint64_t start, uint64_t length)
{
	struct joiner *j = userdata;

	if (j->length && j->start + j->length == start) {
		j->length += length;
		return;
	}
	if (j->length)
		j->each(j->userdata, j->start, j->length);
	j->start = start;
	j->length = length;
}

int bitmap_extents(sd_bus *bus, const char *label, const char *name, const char *until,
                   void (*each)(void *userdata, uint64_t start, uint64_t length), void *userdata,
                   struct failure *why)
{
	struct joiner joiner = { each, userdata, 0, 0 };
	uint64_t at = 0;

	do {
		AUTO_MESSAGE *m = NULL;
		AUTO_MESSAGE *reply = NULL;
		uint64_t next = 0;
		int r = control_new_call(bus, BITMAPS(label), "Extents", &m);

		if (r >= 0)
			r = sd_bus_message_append(m, "sstt", name, until, at, UINT64_C(0));
		if (r < 0)
			return fail_talk(label, r, why);
		if (finish(bus, label, "Extents", m, &reply, why) < 0)
			return -why->code;
		r = read_extents(reply, join, &joiner, &next);
		if (r < 0 || (next && next <= at))
			return fail_talk(label, r < 0 ? r : -EBADMSG, why);
		at = next;
	} while (at);
	if (joiner.length)
		each(userdata, joiner.start, joiner.length);
	return 0;
}

int bitmap_map(sd_bus *bus, const char *label, const char *name, uint32_t n, uint64_t *cells,
               uint64_t *ret_size, struct failure *why)
{
	AUTO_MESSAGE *m = NULL;
	AUTO_MESSAGE *reply = NULL;
	const void *array;
	size_t size;
	int r = control_new_call(bus, BITMAPS(label), "Map", &m);

	if (r >= 0)
		r = sd_bus_message_append(m, "su", name, n);
	if (r < 0)
		return fail_talk(label, r, why);
	r = finish(bus, label, "Map", m, &reply, why);
	if (r < 0)
		return r;
	r = sd_bus_message_read(reply, "t", ret_size);
	if (r >= 0)
		r = sd_bus_message_read_array(reply, 't', &array, &size);
	if (r >= 0 && size != n * sizeof *cells)
		r = -EBADMSG;
	if (r < 0)
		return fail_talk(label, r, why);
	memcpy(cells, array, size);
	return 0;
}

#define STATUS_FIELD(name, type, member) { name, type, offsetof(struct bitmap_status, member) }

static const struct control_field status_fields[] = {
	STATUS_FIELD("Path", 's', path),
	STATUS_FIELD("Failing", 's', failing),
	STATUS_FIELD("Granularity", 't', granularity),
	STATUS_FIELD("Region", 't', region),
	STATUS_FIELD("UncleanEnds", 't', unclean_ends),
	STATUS_FIELD("OverReported", 't', over_reported),
	STATUS_FIELD("Records", 't', records),
	STATUS_FIELD("PageWrites", 't', page_writes),
	STATUS_FIELD("ArmLimit", 'u', arm_limit),
	STATUS_FIELD("Armed", 'u', armed),
	STATUS_FIELD("HasStore", 'b', has_store),
	STATUS_FIELD("Recording", 'b', recording),
};

void bitmap_status_clear(struct bitmap_status *s)
{
	free(s->path);
	free(s->failing);
	*s = (struct bitmap_status) { 0 };
}

int bitmap_status(sd_bus *bus, const char *label, struct bitmap_status *ret, struct failure *why)
{
	struct bitmap_status status = { 0 };
	AUTO_MESSAGE *m = NULL;
	int r = call_plain(bus, label, "Status", &m, why);

	if (r < 0)
		return r;
	r = control_read_dictionary(m, status_fields, ARRAY_LEN(status_fields), &status);
	if (r < 0) {
		bitmap_status_clear(&status);
		return fail_talk(label, r, why);
	}
	*ret = status;
	return 0;
}
