/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Edits: each makes a new catalogue out of the old one, and makes it durable in one step.
 *
 * What begins or ends a stretch of time needs a cut: changes stop, those under way finish, the
 * device is flushed, and the recording delta gives way to a new one while nothing is under way.
 * Without that flush, what was acknowledged before the cut could be undone by a power cut
 * and be clean after it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dirty/edit-work.h"

#define HOLD_SECONDS 10u
#define AREAS_BEFORE_MERGING 8u

/* Checks */

static int check_granularity(struct work *work)
{
	uint32_t wanted = work->edit->granularity;
	unsigned shift = work->tracker->granule_shift;

	if (!wanted || !work->tracker->has_store || wanted == 1u << shift)
		return 0;
	return fail_plain(&work->edit->why, EINVAL, "%s: this export's bitmaps have a granularity of %u "
	                  "KiB, all of them", work->edit->name, (1u << shift) >> 10);
}

static int check(struct work *work, const struct edit_rule *rule, struct bitmap_entry **ret)
{
	const struct tracker *tracker = work->tracker;
	const struct edit *edit = work->edit;
	int r = rule->nameless ? 0 : edit_check_name(work, edit->name);

	if (r < 0)
		return r;
	*ret = NULL;
	if (rule->nameless)
		return tracker->unusable ? edit_refuse(work, EIO, "the store of bitmaps failed") : 0;
	*ret = tracker->has_store ? catalogue_find(work->draft, edit->name) : NULL;
	if (rule->makes && *ret)
		return edit_refuse(work, EEXIST, "there is a bitmap of that name");
	if (!rule->makes && (!*ret || (*ret)->pending))
		return edit_refuse(work, ENOENT, "there is no such bitmap");
	if (tracker->unusable)
		return edit_refuse(work, EIO, "the store of bitmaps failed; restart the export");
	if (edit->held && !tracker->held)
		return edit_refuse(work, ETIMEDOUT, "changes are not held any more");
	if (edit->group[0] && tracker->settings.decided(edit->group) != GROUP_UNDECIDED)
		return edit_refuse(work, ENOENT, "this export does not see what the group agrees by (NBD_EXPORT_GROUPS)");
	if (tracker->settings.read_only && edit->kind != EDIT_DELTA && rule->makes)
		return edit_refuse(work, EROFS, "a read-only export has nothing to record");
	r = check_granularity(work);
	if (r == 0 && rule->changes && bitmaps_lock(work->tracker, edit->name, edit->force) < 0)
		return edit_refuse(work, EBUSY, "clients have selected it");
	return r;
}

/* The cut */

static int flush(struct work *work)
{
	const struct tracker_settings *settings = &work->tracker->settings;
	int r = settings->flush(settings->userdata);

	return r == 0 ? 0 : fail(&work->edit->why, -r, "%s: the device could not be flushed",
	                         work->edit->name);
}

/* Everything is written that can be beforehand, so that changes stop for a short time. */
static int stop_changes(struct work *work)
{
	int r = flush(work);

	if (r == 0)
		r = recorder_write_back(work->tracker, &work->edit->why);
	if (r < 0)
		return r;
	r = tracker_close_gate(work->tracker);
	if (r < 0)
		return fail(&work->edit->why, -r, "%s: writes that are under way did not end",
		            work->edit->name);
	work->gate_closed = true;
	return flush(work);
}

/* What recorded until now is a part of whatever it recorded for. */
static void freeze(struct catalogue *draft, uint32_t area)
{
	for (unsigned i = 0; i < draft->n_bitmaps; i++) {
		struct bitmap_entry *entry = &draft->bitmaps[i];

		if (entry->follows)
			area_put(&entry->shows, area);
		if (entry->watches)
			area_put(&entry->missed, area);
	}
}

static int begin_delta(struct work *work)
{
	struct tracker *tracker = work->tracker;
	struct catalogue *draft = work->draft;
	uint32_t area = catalogue_free_area(draft);
	int r;

	if (area == NO_AREA)
		return edit_refuse(work, ENOSPC, "there is no room for one more stretch of time in the store");
	r = store_prepare_area(&tracker->store, area, &work->edit->why);
	if (r < 0)
		return r;
	work->fresh = delta_new(draft->next_id, area, tracker->store.n_granules);
	if (!work->fresh)
		return fail(&work->edit->why, ENOMEM, "%s", work->edit->name);
	draft->deltas[area].id = draft->next_id++;
	draft->recording = area;
	return 0;
}

static int cut(struct work *work)
{
	struct tracker *tracker = work->tracker;
	uint32_t area = work->draft->recording;
	struct delta *old = area == NO_AREA ? NULL : tracker->store.deltas[area];
	int r = tracker->held ? 0 : stop_changes(work);

	if (r < 0)
		return r;
	if (old && delta_is_empty(old))
		return 0;               /* nothing has changed since the last cut */
	r = recorder_write_back(tracker, &work->edit->why);
	if (r < 0)
		return r;
	if (old)
		freeze(work->draft, old->area);
	return begin_delta(work);
}

/* Carrying out */

/* Nobody records any more: nothing is armed for it either.  The gate is closed. */
static bool nobody_records(const struct catalogue *draft)
{
	for (unsigned i = 0; i < draft->n_bitmaps; i++)
		if (draft->bitmaps[i].follows || draft->bitmaps[i].watches)
			return false;
	return true;
}

static void forget_areas(struct tracker *tracker, const struct area_set *areas)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		if (!area_in(areas, area))
			continue;
		delta_unref(tracker->store.deltas[area]);
		tracker->store.deltas[area] = NULL;
	}
	store_clear_areas(&tracker->store, areas);
}

/* The catalogue is on the medium: memory follows. */
static void install(struct work *work)
{
	struct tracker *tracker = work->tracker;
	uint32_t area = work->draft->recording;

	if (work->fresh)
		tracker->store.deltas[work->fresh->area] = work->fresh;
	work->fresh = NULL;
	if (!tracker->settings.read_only)
		atomic_store(&tracker->recording, area == NO_AREA ? NULL : tracker->store.deltas[area]);
}

/* A stop of recording needs the gate, since threads use the delta that goes. */
static int end_recording(struct work *work)
{
	int r;

	if (!nobody_records(work->draft) || work->draft->recording == NO_AREA)
		return 0;
	if (!work->gate_closed && !work->tracker->held) {
		r = tracker_close_gate(work->tracker);
		if (r < 0)
			return fail(&work->edit->why, -r, "%s: writes that are under way did not end",
			            work->edit->name);
		work->gate_closed = true;
	}
	work->draft->recording = NO_AREA;
	return 0;
}

static int commit(struct work *work)
{
	struct tracker *tracker = work->tracker;
	struct failure unsaid = { 0 };
	struct area_set unused;
	int r = end_recording(work);

	if (r < 0)
		return r;
	unused = catalogue_sweep(work->draft);
	r = store_commit(&tracker->store, work->draft, &work->edit->why);
	if (r < 0) {
		if (r == -EIO)
			tracker->unusable = true;
		return r;
	}
	if (work->fresh && area_in(&unused, work->fresh->area)) {
		delta_unref(work->fresh);
		work->fresh = NULL;
	}
	install(work);
	if (work->draft->recording != NO_AREA && !atomic_load(&tracker->refuse))
		recorder_note_failing(tracker, "");     /* not any more */
	if (work->draft->recording == NO_AREA)
		(void) recorder_forget_armed(tracker, &unsaid);         /* of no use to anybody */
	bitmaps_publish(tracker);
	forget_areas(tracker, &unused);
	return 0;
}

/* Two frozen deltas that all bitmaps have or have not alike are one. */
static bool are_alike(const struct catalogue *catalogue, uint32_t a, uint32_t b)
{
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++) {
		const struct bitmap_entry *entry = &catalogue->bitmaps[i];

		if (area_in(&entry->shows, a) != area_in(&entry->shows, b) ||
		    area_in(&entry->missed, a) != area_in(&entry->missed, b))
			return false;
	}
	return true;
}

static bool find_alike(const struct catalogue *catalogue, uint32_t *ret_a, uint32_t *ret_b)
{
	unsigned n_used = 0;

	for (uint32_t area = 0; area < AREAS_MAX; area++)
		n_used += catalogue->deltas[area].id != 0;
	if (n_used < AREAS_BEFORE_MERGING)
		return false;
	for (uint32_t a = 0; a < AREAS_MAX; a++)
		for (uint32_t b = a + 1; b < AREAS_MAX; b++)
			if (catalogue->deltas[a].id && catalogue->deltas[b].id &&
			    a != catalogue->recording && b != catalogue->recording &&
			    are_alike(catalogue, a, b)) {
				*ret_a = a;
				*ret_b = b;
				return true;
			}
	return false;
}

static int write_whole(struct work *work, struct delta *delta)
{
	struct tracker *tracker = work->tracker;
	int r = 0;

	for (uint32_t page = 0; page < delta->n_pages && r == 0; page++)
		if (delta_take_ahead(delta, page))
			r = store_write_pages(&tracker->store, delta, &page, 1, &work->edit->why);
	return r == 0 ? store_sync(&tracker->store, &work->edit->why) : r;
}

static void replace(struct catalogue *draft, uint32_t a, uint32_t b, uint32_t by)
{
	for (unsigned i = 0; i < draft->n_bitmaps; i++) {
		struct area_set *sets[] = { &draft->bitmaps[i].shows, &draft->bitmaps[i].missed };

		for (unsigned j = 0; j < 2; j++) {
			if (area_in(sets[j], a))
				area_put(sets[j], by);
			area_drop(sets[j], a);
			area_drop(sets[j], b);
		}
	}
}

/* So that an old bitmap beside one that is cleared every day does not fill the store. */
static int merge_pair(struct work *work, uint32_t a, uint32_t b)
{
	struct tracker *tracker = work->tracker;
	int r;

	*work->draft = tracker->store.catalogue;
	r = begin_delta(work);
	work->draft->recording = tracker->store.catalogue.recording;
	if (r < 0)
		return r;
	delta_add(work->fresh, tracker->store.deltas[a]);
	delta_add(work->fresh, tracker->store.deltas[b]);
	replace(work->draft, a, b, work->fresh->area);
	r = write_whole(work, work->fresh);
	return r == 0 ? commit(work) : r;
}

/* A merge that fails costs room alone: the edit has been made. */
static void merge_alike(struct work *work)
{
	struct failure kept = work->edit->why;
	uint32_t a, b;

	while (find_alike(work->draft, &a, &b))
		if (merge_pair(work, a, b) < 0) {
			log_warning("%s: %s", work->tracker->path, work->edit->why.text);
			break;
		}
	if (!work->tracker->unusable)
		work->edit->why = kept;
}

/* Readers know a bitmap by its name: it keeps its number, and those who selected it. */
static int commit_edit(struct work *work)
{
	const struct edit *edit = work->edit;
	bool renames = edit->kind == EDIT_RENAME;
	int r;

	if (renames)
		bitmaps_rename(work->tracker, edit->name, edit->other);
	r = commit(work);
	if (renames && r < 0)
		bitmaps_rename(work->tracker, edit->other, edit->name);
	return r;
}

static int edit_catalogue(struct work *work, const struct edit_rule *rule)
{
	struct bitmap_entry *entry;
	int r = check(work, rule, &entry);

	if (r == 0 && !work->tracker->has_store) {
		uint32_t granularity = work->edit->granularity;

		r = tracker_make_store(work->tracker, granularity ? (unsigned) __builtin_ctz(granularity) :
		                       work->tracker->settings.granule_shift, &work->edit->why);
		*work->draft = work->tracker->store.catalogue;
	}
	if (r == 0 && rule->cuts)
		r = cut(work);
	if (r == 0)
		r = rule->apply(work, entry);
	if (r == 0)
		r = commit_edit(work);
	if (work->gate_closed)
		tracker_open_gate(work->tracker);
	if (r == 0)
		merge_alike(work);
	delta_unref(work->fresh);
	return r;
}

static int carry_out(struct tracker *tracker, struct edit *edit)
{
	const struct edit_rule *rule = &edit_rules[edit->kind];
	struct work work = { .tracker = tracker, .edit = edit };
	int r;

	work.draft = malloc(sizeof *work.draft);
	if (!work.draft)
		return fail(&edit->why, ENOMEM, "%s", edit->name);
	if (tracker->has_store)
		*work.draft = tracker->store.catalogue;
	else
		*work.draft = (struct catalogue) { .recording = NO_AREA };
	r = edit_catalogue(&work, rule);
	bitmaps_unlock(tracker);
	free(work.draft);
	if (tracker->unusable)
		recorder_store_failed(tracker, &edit->why);
	if (r == 0)
		tracker->settings.changed(tracker->settings.userdata);
	return r;
}

bool tracker_has_pending(const struct tracker *tracker)
{
	const struct catalogue *catalogue = &tracker->store.catalogue;

	for (unsigned i = 0; tracker->has_store && i < catalogue->n_bitmaps; i++)
		if (catalogue->bitmaps[i].pending)
			return true;
	return false;
}

static bool is_decided(const struct tracker *tracker, const char *group)
{
	enum group_decision decision = tracker->settings.decided(group);

	return decision == GROUP_COMMITTED || decision == GROUP_ABORTED;
}

/* Whether anything is to be done, which need not be written to the store else. */
static bool any_decided(const struct tracker *tracker)
{
	const struct catalogue *catalogue = &tracker->store.catalogue;

	for (unsigned i = 0; tracker->has_store && i < catalogue->n_bitmaps; i++)
		if (catalogue->bitmaps[i].pending &&
		    is_decided(tracker, catalogue->bitmaps[i].group))
			return true;
	return false;
}

int tracker_resolve(struct tracker *tracker, struct failure *why)
{
	struct edit edit = { .kind = EDIT_RESOLVE };
	int r = any_decided(tracker) ? carry_out(tracker, &edit) : 0;

	*why = edit.why;
	return r;
}

/* Whoever has decided asks for this, and forgets the decision once all have seen it. */
static int resolve_all(struct tracker *tracker, struct edit *edit)
{
	int r = tracker_resolve(tracker, &edit->why);

	if (r == 0 && tracker_has_pending(tracker))
		r = fail_plain(&edit->why, EAGAIN, "what was decided about a checkpoint of several "
		               "exports cannot be read yet");
	return r;
}

static int hold(struct tracker *tracker, struct edit *edit)
{
	struct work work = { .tracker = tracker, .edit = edit };
	int r;

	if (tracker->held)
		return fail_plain(&edit->why, EBUSY, "changes are held for somebody else's checkpoint");
	r = stop_changes(&work);
	if (r < 0) {
		if (work.gate_closed)
			tracker_open_gate(tracker);
		return r;
	}
	tracker->held = true;
	tracker->hold_ends = tracker_now() + HOLD_SECONDS * UINT64_C(1000000);
	return 0;
}

static int release(struct tracker *tracker)
{
	if (tracker->held)
		tracker_open_gate(tracker);
	tracker->held = false;
	return 0;
}

void tracker_carry_out(struct tracker *tracker, struct edit *edit)
{
	if (edit->kind == EDIT_HOLD)
		edit->result = hold(tracker, edit);
	else if (edit->kind == EDIT_RELEASE)
		edit->result = release(tracker);
	else if (edit->kind == EDIT_RESOLVE)
		edit->result = resolve_all(tracker, edit);
	else
		edit->result = carry_out(tracker, edit);
}
