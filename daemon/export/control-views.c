/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What reads bitmaps.  The pool looks through them, since a large device takes a while.
 */
#include "export/control-bitmaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/tracker.h"
#include "export/server.h"

#define EXTENTS_MAX 4096u               /* of one answer: 64 KiB */
#define CELLS_MAX 4096u

struct extent {
	uint64_t start, length;
};

struct query {
	struct bitmap_call call;
	int (*answer)(struct query *query, sd_bus_message *reply);

	/* List: all of them; else views[0] alone */
	unsigned n;
	struct bitmap_info infos[BITMAPS_MAX];
	struct view *views[BITMAPS_MAX];        /* NULL: has just gone */
	uint64_t dirty[BITMAPS_MAX];

	/* Extents */
	uint64_t at, limit;
	struct extent *extents;
	size_t n_extents;
	uint64_t next;                  /* where to go on; 0: that was all */

	/* Map */
	uint64_t *cells;                /* dirty bytes of each part of the device */
	uint32_t n_cells;
};

static void free_query(struct bitmap_call *call)
{
	struct query *query = container_of(call, struct query, call);

	for (unsigned i = 0; i < query->n; i++)
		view_unref(query->views[i]);
	free(query->extents);
	free(query->cells);
	free(query);
}

/* The main thread: the pool has looked. */
static void answer(struct job *job)
{
	struct query *query = container_of(job, struct query, call.job);
	sd_bus_message *message = query->call.message, *reply = NULL;
	int r;

	if (message) {
		r = sd_bus_message_new_method_return(message, &reply);
		if (r >= 0)
			r = query->answer(query, reply);
		if (r >= 0)
			r = sd_bus_send(NULL, reply, NULL);
		if (r < 0)
			(void) sd_bus_reply_method_errnof(message, -r, "cannot answer with bitmaps");
		sd_bus_message_unref(reply);
	}
	bitmap_call_end(&query->call);
}

static struct query *query_new(void)
{
	struct query *query = calloc(1, sizeof *query);

	if (query)
		query->call.free = free_query;
	return query;
}

/* Gives it to the pool, or frees it.  sd-bus's answer to a handler. */
static int begin(struct query *query, struct server *server, sd_bus_message *message,
                 void (*look)(struct job *job), sd_bus_error *error)
{
	int r = bitmap_call_begin(&query->call, server, message, error);

	if (r < 0) {
		free_query(&query->call);
		return r;
	}
	query->call.job.run = look;
	query->call.job.done = answer;
	pool_submit(&server->export.pool, &query->call.job, &server->export.mail);
	return 1;
}

/* --- List ----------------------------------------------------------------- */

static void look_at_all(struct job *job)
{
	struct query *query = container_of(job, struct query, call.job);

	for (unsigned i = 0; i < query->n; i++)
		if (query->views[i])
			query->dirty[i] = view_dirty_bytes(query->views[i]);
}

static int append_bitmap(sd_bus_message *reply, const struct bitmap_info *info,
                         const struct view *view, uint64_t dirty)
{
	return sd_bus_message_append(reply, "a{sv}", 11,
	                             "Name", "s", info->name,
	                             "State", "s", bitmap_state_word(info->state),
	                             "Reason", "s", info->reason,
	                             "DirtyBytes", "t", dirty,
	                             "Size", "t", view->size,
	                             "Everything", "b", (int) view->everything,
	                             "Granularity", "u", info->granularity,
	                             "Created", "t", info->created,
	                             "Since", "t", info->state_since,
	                             "Checkpoint", "b", (int) info->checkpoint,
	                             "Clients", "u", (uint32_t) info->n_users);
}

static int answer_list(struct query *query, sd_bus_message *reply)
{
	int r = sd_bus_message_open_container(reply, 'a', "a{sv}");

	for (unsigned i = 0; r >= 0 && i < query->n; i++)
		if (query->views[i])
			r = append_bitmap(reply, &query->infos[i], query->views[i], query->dirty[i]);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bitmaps_list(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	struct tracker *tracker = server->export.tracker;
	struct query *query = query_new();

	if (!query)
		return -ENOMEM;
	query->n = tracker ? tracker_list(tracker, query->infos) : 0;
	for (unsigned i = 0; i < query->n; i++)
		query->views[i] = tracker_view(tracker, query->infos[i].id);
	query->answer = answer_list;
	return begin(query, server, message, look_at_all, error);
}

/* --- one bitmap ----------------------------------------------------------- */

static int find_view(struct server *server, const char *name, struct query *query,
                     struct bitmap_info *ret_info, struct view **ret, sd_bus_error *error)
{
	struct tracker *tracker = server->export.tracker;
	unsigned n = tracker ? tracker_list(tracker, query->infos) : 0;

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(query->infos[i].name, name) != 0)
			continue;
		*ret_info = query->infos[i];
		*ret = tracker_view(tracker, query->infos[i].id);
		if (*ret)
			return 0;
	}
	return sd_bus_error_setf(error, CONTROL_ERROR_NO_SUCH_BITMAP, "there is no bitmap %s", name);
}

static bool view_has(const struct view *view, const struct delta *delta)
{
	for (unsigned i = 0; i < view->n_deltas; i++)
		if (view->deltas[i] == delta)
			return true;
	return false;
}

/* What `from` shows and `until` does not begin to: NULL when memory is short. */
static struct view *view_between(const struct view *from, const struct view *until)
{
	struct delta *deltas[AREAS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < from->n_deltas; i++)
		if (!view_has(until, from->deltas[i]))
			deltas[n++] = from->deltas[i];
	return view_new(from->everything, from->granule_shift, from->size, deltas, n);
}

static int check_between(const struct bitmap_info *from, const struct bitmap_info *until,
                         const struct view *view, const struct view *until_view,
                         sd_bus_error *error)
{
	if (!from->checkpoint || !until->checkpoint)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "%s is no checkpoint",
		                         from->checkpoint ? until->name : from->name);
	if (until_view->everything)
		return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "checkpoint %s is in the state "
		                         "%s: where it begins is not known any more", until->name,
		                         bitmap_state_word(until->state));
	for (unsigned i = 0; !view->everything && i < until_view->n_deltas; i++)
		if (!view_has(view, until_view->deltas[i]))
			return sd_bus_error_setf(error, CONTROL_ERROR_BAD_STATE, "checkpoint %s does not "
			                         "begin before %s", from->name, until->name);
	return 0;
}

/* The bitmap's view, or, when `until` is not "", what changed from the one to the other. */
static int choose_view(struct server *server, struct query *query, const char *name,
                       const char *until, sd_bus_error *error)
{
	struct bitmap_info from_info, until_info;
	struct view *from = NULL, *to = NULL;
	int r = find_view(server, name, query, &from_info, &from, error);

	if (r < 0 || !*until) {
		query->views[0] = from;
		query->n = from != NULL;
		return r;
	}
	r = find_view(server, until, query, &until_info, &to, error);
	if (r >= 0)
		r = check_between(&from_info, &until_info, from, to, error);
	if (r >= 0) {
		query->views[0] = view_between(from, to);
		query->n = 1;
		r = query->views[0] ? 0 : -ENOMEM;
	}
	view_unref(from);
	view_unref(to);
	return r;
}

/* --- Extents -------------------------------------------------------------- */

static void look_for_extents(struct job *job)
{
	struct query *query = container_of(job, struct query, call.job);
	const struct view *view = query->views[0];
	uint64_t at = query->at, end;

	while (at < view->size && query->n_extents < query->limit) {
		if (view_extent(view, at, view->size, &end))
			query->extents[query->n_extents++] = (struct extent) { at, end - at };
		at = end;
	}
	query->next = at < view->size ? at : 0;
}

static int answer_extents(struct query *query, sd_bus_message *reply)
{
	int r = sd_bus_message_open_container(reply, 'a', "(tt)");

	for (size_t i = 0; r >= 0 && i < query->n_extents; i++)
		r = sd_bus_message_append(reply, "(tt)", query->extents[i].start,
		                          query->extents[i].length);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	return r < 0 ? r : sd_bus_message_append(reply, "t", query->next);
}

int bitmaps_extents(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	struct query *query = query_new();
	const char *name, *until;
	int r;

	if (!query)
		return -ENOMEM;
	r = sd_bus_message_read(message, "sstt", &name, &until, &query->at, &query->limit);
	if (r >= 0)
		r = choose_view(server, query, name, until, error);
	if (query->limit == 0 || query->limit > EXTENTS_MAX)
		query->limit = EXTENTS_MAX;
	if (r >= 0) {
		query->extents = calloc(query->limit, sizeof *query->extents);
		r = query->extents ? 0 : -ENOMEM;
	}
	if (r < 0) {
		free_query(&query->call);
		return r;
	}
	query->answer = answer_extents;
	return begin(query, server, message, look_for_extents, error);
}

/* --- Map ------------------------------------------------------------------ */

/* Where cell `i` begins: parts of equal size, but for rounding. */
static uint64_t cell_start(const struct query *query, uint32_t i)
{
	return (uint64_t) ((__uint128_t) query->views[0]->size * i / query->n_cells);
}

static void look_for_cells(struct job *job)
{
	struct query *query = container_of(job, struct query, call.job);
	const struct view *view = query->views[0];
	uint64_t at = 0, end;

	for (uint32_t i = 0; i < query->n_cells; i++) {
		uint64_t stop = cell_start(query, i + 1);

		for (; at < stop; at = end)
			if (view_extent(view, at, stop, &end))
				query->cells[i] += (end < stop ? end : stop) - at;
	}
}

static int answer_map(struct query *query, sd_bus_message *reply)
{
	int r = sd_bus_message_append(reply, "t", query->views[0]->size);

	return r < 0 ? r : sd_bus_message_append_array(reply, 't', query->cells,
	                                               query->n_cells * sizeof *query->cells);
}

int bitmaps_map(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	struct query *query = query_new();
	const char *name;
	int r;

	if (!query)
		return -ENOMEM;
	r = sd_bus_message_read(message, "su", &name, &query->n_cells);
	if (r >= 0 && (query->n_cells == 0 || query->n_cells > CELLS_MAX))
		r = sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "1 to %u parts", CELLS_MAX);
	if (r >= 0)
		r = choose_view(server, query, name, "", error);
	if (r >= 0) {
		query->cells = calloc(query->n_cells, sizeof *query->cells);
		r = query->cells ? 0 : -ENOMEM;
	}
	if (r < 0) {
		free_query(&query->call);
		return r;
	}
	query->answer = answer_map;
	return begin(query, server, message, look_for_cells, error);
}

/* --- Status --------------------------------------------------------------- */

static int append_status(sd_bus_message *reply, const struct tracker_status *s)
{
	return sd_bus_message_append(reply, "a{sv}", 13,
	                             "Path", "s", s->path,
	                             "HasStore", "b", (int) s->has_store,
	                             "Recording", "b", (int) s->recording,
	                             "Granularity", "t", s->has_store ? UINT64_C(1) << s->granule_shift : 0,
	                             "Region", "t", s->has_store ? UINT64_C(1) << s->region_shift : 0,
	                             "ArmLimit", "u", s->arm_limit,
	                             "Armed", "u", s->n_armed,
	                             "Pending", "u", (uint32_t) s->n_pending,
	                             "UncleanEnds", "t", s->unclean_ends,
	                             "OverReported", "t", s->over_reported,
	                             "Records", "t", s->n_records,
	                             "PageWrites", "t", s->n_page_writes,
	                             "Failing", "s", s->failing);
}

int bitmaps_status(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
	struct server *server = userdata;
	struct tracker_status status = { .failing = "" };
	sd_bus_message *reply = NULL;
	int r = sd_bus_message_new_method_return(message, &reply);

	(void) error;
	if (server->export.tracker)
		tracker_status(server->export.tracker, &status);
	if (r >= 0)
		r = append_status(reply, &status);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r < 0 ? r : 1;
}
