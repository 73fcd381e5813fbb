/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps as readers see them: what the recorder publishes after each edit.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "dirty/tracker-state.h"

#define MISSED_REASON "something was written while it was disabled"

/* Reading */

static struct bitmap *find(struct tracker *tracker, uint32_t id)
{
	for (unsigned i = 0; i < tracker->seen->n_bitmaps; i++)
		if (tracker->bitmaps[i].id == id)
			return &tracker->bitmaps[i];
	return NULL;
}

static const struct bitmap_entry *entry_of(const struct tracker *tracker,
                                           const struct bitmap *bitmap)
{
	return &tracker->seen->bitmaps[bitmap - tracker->bitmaps];
}

/* A disabled bitmap is a gap from the first change on; with the lock, or in the recorder. */
static bool has_missed(const struct bitmap *bitmap)
{
	const struct view *missed = bitmap->missed;

	for (unsigned i = 0; missed && i < missed->n_deltas; i++)
		if (!delta_is_empty(missed->deltas[i]))
			return true;
	return false;
}

unsigned tracker_list(struct tracker *tracker, struct bitmap_info ret[BITMAPS_MAX])
{
	unsigned n = 0;

	pthread_mutex_lock(&tracker->lock);
	for (unsigned i = 0; i < tracker->seen->n_bitmaps; i++) {
		const struct bitmap_entry *entry = &tracker->seen->bitmaps[i];
		const struct bitmap *bitmap = &tracker->bitmaps[i];
		bool gap = entry->state == BITMAP_DISABLED && has_missed(bitmap);

		if (entry->pending)
			continue;
		ret[n] = (struct bitmap_info) {
			.id = bitmap->id, .n_users = bitmap->n_users,
			.state = gap ? BITMAP_GAP : entry->state, .checkpoint = entry->checkpoint,
			.created = entry->created, .state_since = entry->state_since,
			.granularity = 1u << tracker->granule_shift,
		};
		(void) snprintf(ret[n].name, sizeof ret[n].name, "%s", entry->name);
		(void) snprintf(ret[n].reason, sizeof ret[n].reason, "%s",
		                gap ? MISSED_REASON : entry->reason);
		n++;
	}
	pthread_mutex_unlock(&tracker->lock);
	return n;
}

struct view *tracker_view(struct tracker *tracker, uint32_t id)
{
	struct view *view = NULL;
	struct bitmap *bitmap;

	pthread_mutex_lock(&tracker->lock);
	bitmap = find(tracker, id);
	if (bitmap && entry_of(tracker, bitmap)->state == BITMAP_DISABLED && has_missed(bitmap))
		view = view_new(true, tracker->granule_shift, tracker->settings.size, NULL, 0);
	else if (bitmap && bitmap->view)
		view = view_ref(bitmap->view);
	pthread_mutex_unlock(&tracker->lock);
	return view;
}

bool tracker_use(struct tracker *tracker, uint32_t id)
{
	struct bitmap *bitmap;
	bool may;

	pthread_mutex_lock(&tracker->lock);
	bitmap = find(tracker, id);
	may = bitmap && !bitmap->locked;
	if (may)
		bitmap->n_users++;
	pthread_mutex_unlock(&tracker->lock);
	return may;
}

/* It may have been removed by force. */
void tracker_unuse(struct tracker *tracker, uint32_t id)
{
	struct bitmap *bitmap;

	pthread_mutex_lock(&tracker->lock);
	bitmap = find(tracker, id);
	if (bitmap && bitmap->n_users > 0)
		bitmap->n_users--;
	pthread_mutex_unlock(&tracker->lock);
}

void tracker_status(struct tracker *tracker, struct tracker_status *ret)
{
	*ret = (struct tracker_status) { 0 };
	pthread_mutex_lock(&tracker->lock);
	(void) snprintf(ret->path, sizeof ret->path, "%s", tracker->path);
	(void) snprintf(ret->failing, sizeof ret->failing, "%s", tracker->failing);
	ret->has_store = tracker->has_store;
	ret->recording = atomic_load(&tracker->recording) != NULL;
	ret->granule_shift = tracker->granule_shift;
	ret->region_shift = tracker->settings.region_shift;
	ret->arm_limit = tracker->settings.arm_limit;
	ret->n_armed = tracker->regions.n_armed;
	for (unsigned i = 0; i < tracker->seen->n_bitmaps; i++)
		ret->n_pending += tracker->seen->bitmaps[i].pending;
	ret->unclean_ends = tracker->seen->unclean_ends;
	ret->over_reported = tracker->seen->over_reported;
	ret->n_records = tracker->n_records;
	ret->n_page_writes = tracker->n_page_writes;
	pthread_mutex_unlock(&tracker->lock);
}

/* Publishing: the recorder's */

/* The deltas of these areas, and the recording one where `recording`. */
static struct view *make_view(const struct tracker *tracker, bool everything,
                              const struct area_set *areas, bool recording)
{
	const struct store *store = &tracker->store;
	struct delta *deltas[AREAS_MAX + 1];
	unsigned n = 0;

	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (area_in(areas, area) && store->deltas[area])
			deltas[n++] = store->deltas[area];
	if (recording && store->catalogue.recording != NO_AREA)
		deltas[n++] = store->deltas[store->catalogue.recording];
	return view_new(everything, tracker->granule_shift, tracker->settings.size, deltas, n);
}

static void fill(const struct tracker *tracker, const struct bitmap_entry *entry,
                 struct bitmap *bitmap)
{
	bool everything = entry->state == BITMAP_GAP || entry->state == BITMAP_LOST;

	bitmap->view = make_view(tracker, everything, &entry->shows, entry->follows);
	bitmap->missed = NULL;
	if (entry->state != BITMAP_DISABLED)
		return;
	bitmap->missed = make_view(tracker, false, &entry->missed, entry->watches);
	if (!bitmap->missed) {          /* cannot tell: nobody gets to see it */
		view_unref(bitmap->view);
		bitmap->view = NULL;
	}
}

static void empty(struct bitmap *bitmap)
{
	view_unref(bitmap->view);
	view_unref(bitmap->missed);
	bitmap->view = bitmap->missed = NULL;
}

/* Who has been there under this name keeps number and users. */
static struct bitmap keep_or_number(struct tracker *tracker, const char *name)
{
	for (unsigned i = 0; i < tracker->seen->n_bitmaps; i++)
		if (strcmp(tracker->seen->bitmaps[i].name, name) == 0)
			return (struct bitmap) {
				.id = tracker->bitmaps[i].id, .n_users = tracker->bitmaps[i].n_users,
			};
	return (struct bitmap) { .id = tracker->next_id++ };
}

void bitmaps_publish(struct tracker *tracker)
{
	const struct catalogue *catalogue = &tracker->store.catalogue;
	struct bitmap next[BITMAPS_MAX], old[BITMAPS_MAX];
	unsigned n_old;

	memset(next, 0, sizeof next);
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++)
		fill(tracker, &catalogue->bitmaps[i], &next[i]);

	pthread_mutex_lock(&tracker->lock);
	n_old = tracker->seen->n_bitmaps;
	memcpy(old, tracker->bitmaps, sizeof old);
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++) {
		struct bitmap kept = keep_or_number(tracker, catalogue->bitmaps[i].name);

		next[i].id = kept.id;
		next[i].n_users = kept.n_users;
	}
	memcpy(tracker->bitmaps, next, sizeof next);
	*tracker->seen = *catalogue;
	pthread_mutex_unlock(&tracker->lock);

	for (unsigned i = 0; i < n_old; i++)
		empty(&old[i]);
}

void bitmaps_drop(struct tracker *tracker)
{
	for (unsigned i = 0; tracker->seen && i < tracker->seen->n_bitmaps; i++)
		empty(&tracker->bitmaps[i]);
}

void bitmaps_rename(struct tracker *tracker, const char *name, const char *other)
{
	struct bitmap_entry *entry;

	pthread_mutex_lock(&tracker->lock);
	entry = catalogue_find(tracker->seen, name);
	if (entry)
		(void) snprintf(entry->name, sizeof entry->name, "%s", other);
	pthread_mutex_unlock(&tracker->lock);
}

int bitmaps_lock(struct tracker *tracker, const char *name, bool force)
{
	const struct bitmap_entry *entry;
	struct bitmap *bitmap;
	int r = 0;

	pthread_mutex_lock(&tracker->lock);
	entry = catalogue_find(tracker->seen, name);
	if (entry) {
		bitmap = &tracker->bitmaps[entry - tracker->seen->bitmaps];
		if (bitmap->n_users > 0 && !force)
			r = -EBUSY;
		else
			bitmap->locked = true;
	}
	pthread_mutex_unlock(&tracker->lock);
	return r;
}

void bitmaps_unlock(struct tracker *tracker)
{
	pthread_mutex_lock(&tracker->lock);
	for (unsigned i = 0; i < tracker->seen->n_bitmaps; i++)
		tracker->bitmaps[i].locked = false;
	pthread_mutex_unlock(&tracker->lock);
}
