/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store is taken into use for a device, and left.
 *
 * Everything that makes a bitmap lose track between two runs is found here: a store that is missing,
 * damaged or of another device, a device that shrank or grew, writes by others, an end without
 * leave.  Each is said once, and leaves bitmaps that say too much, never too little.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "dirty/foreign.h"
#include "dirty/grow.h"
#include "dirty/trace.h"
#include "dirty/tracker-state.h"

static struct catalogue *draft_of(const struct tracker *tracker)
{
	struct catalogue *draft = malloc(sizeof *draft);

	if (draft)
		*draft = tracker->store.catalogue;
	return draft;
}

/* Files */

static int lock_file(int fd, const char *path, struct failure *why)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ?
	       fail_plain(why, EBUSY, "%s: another process keeps bitmaps in it", path) :
	       fail(why, errno, "%s: cannot be locked", path);
}

/* Whoever makes a store grow puts a new file in its place, and locks that. */
static bool is_still_there(const char *path, const struct stat *opened)
{
	struct stat now;

	return lstat(path, &now) == 0 && now.st_dev == opened->st_dev && now.st_ino == opened->st_ino;
}

/* -ENOENT, without a sentence, when there is none. */
static int open_file(const char *path, struct file_medium *medium, struct failure *why)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK), r;
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : fail(why, errno, "%s: cannot open the store of bitmaps",
		                                        path);
	r = lock_file(fd, path, why);
	if (r == 0 && fstat(fd, &st) < 0)
		r = fail(why, errno, "%s", path);
	if (r == 0 && !S_ISREG(st.st_mode))
		r = fail_plain(why, EINVAL, "%s: a store of bitmaps is a regular file", path);
	if (r == 0 && !is_still_there(path, &st))
		r = fail_plain(why, EBUSY, "%s: another process has just put a new one there", path);
	if (r < 0) {
		close(fd);
		return r;
	}
	file_medium_init(medium, fd);
	return 0;
}

/* What is in a damaged or strange file may be wanted to find out why. */
static int put_aside(const char *path, struct failure *why)
{
	char aside[4096];

	(void) snprintf(aside, sizeof aside, "%s.bad", path);
	if (rename(path, aside) < 0)
		return fail(why, errno, "%s: cannot be put aside", path);
	return 0;
}

/* Memory for a store that is open */

static int adopt(struct tracker *tracker, struct failure *why)
{
	const struct store_geometry *geometry = &tracker->store.geometry;
	size_t n = geometry->arm_limit;
	int r;

	r = regions_init(&tracker->regions, tracker->settings.size, geometry->region_shift,
	                 geometry->arm_limit, why);
	if (r < 0)
		return r;
	tracker->list = calloc(n, sizeof *tracker->list);
	tracker->wanted = calloc(n, sizeof *tracker->wanted);
	tracker->victims = calloc(n, sizeof *tracker->victims);
	if (!tracker->list || !tracker->wanted || !tracker->victims)
		return fail(why, ENOMEM, "%s", tracker->path);
	pthread_mutex_lock(&tracker->lock);
	tracker->granule_shift = geometry->granule_shift;
	tracker->settings.region_shift = geometry->region_shift;
	tracker->settings.arm_limit = geometry->arm_limit;
	tracker->has_store = true;
	pthread_mutex_unlock(&tracker->lock);
	return 0;
}

/* What a bitmap has lost */

void tracker_lose_bitmap(struct bitmap_entry *entry, enum bitmap_state state, const char *reason)
{
	if (entry->state == BITMAP_GAP || entry->state == BITMAP_LOST)
		return;
	entry->state = state;
	entry->state_since = tracker_real_time();
	entry->follows = entry->follows || entry->watches;
	entry->watches = false;
	(void) snprintf(entry->reason, sizeof entry->reason, "%s", reason);
}

static void lose_all(struct tracker *tracker, struct catalogue *draft, const char *reason)
{
	struct subject about = { .bytes = tracker->settings.size };

	for (unsigned i = 0; i < draft->n_bitmaps; i++)
		tracker_lose_bitmap(&draft->bitmaps[i], BITMAP_LOST, reason);
	if (draft->n_bitmaps > 0)
		log_event(EVENT_BITMAP_LOST, &about, "%s: %s: all of the device counts as changed in its "
		          "%u bitmaps, until they are cleared", tracker->path, reason, draft->n_bitmaps);
}

/* In memory at once, whatever the store takes: each later commit has it. */
void tracker_lose(struct tracker *tracker, const char *reason)
{
	struct failure why = { 0 };

	if (!tracker->has_store)
		return;
	lose_all(tracker, &tracker->store.catalogue, reason);
	if (!tracker->unusable && store_commit(&tracker->store, &tracker->store.catalogue, &why) < 0) {
		tracker->unusable = true;
		recorder_store_failed(tracker, &why);
	}
	bitmaps_publish(tracker);
	tracker->settings.changed(tracker->settings.userdata);
}

static void check_device(struct tracker *tracker, struct catalogue *draft)
{
	const struct tracker_settings *settings = &tracker->settings;

	if (strcmp(draft->identity, settings->identity) != 0)
		lose_all(tracker, draft, "the store was kept for another device");
	else if (settings->size < draft->device_size)
		lose_all(tracker, draft, "the device has shrunk");
	(void) snprintf(draft->identity, sizeof draft->identity, "%s", settings->identity);
	draft->device_size = settings->size;
}

static void tell_recovery(struct tracker *tracker, const struct store_recovery *found,
                          struct catalogue *draft)
{
	struct subject about = { .bytes = found->over_reported };
	char size[32];

	if (found->n_torn_pages > 0)
		log_event(EVENT_BITMAP_LOST, NULL, "%s: %u pages are damaged: all that they were about "
		          "counts as changed", tracker->path, found->n_torn_pages);
	if (!found->unclean)
		return;
	draft->unclean_ends++;
	draft->over_reported = found->over_reported;
	format_size(found->over_reported, size, sizeof size);
	if (draft->recording != NO_AREA)
		log_event(EVENT_BITMAP_RECOVERED, &about, "the last run did not end as it should: what it "
		          "may have been writing (%u regions) counts as changed, %s more than is known",
		          found->n_armed, size);
}

/* Bitmap=: they must exist; what happened before they did is not known. */

static int record_into_new(struct tracker *tracker, struct catalogue *draft, struct failure *why)
{
	uint32_t area = catalogue_free_area(draft);
	int r;

	if (draft->recording != NO_AREA)
		return 0;
	if (area == NO_AREA)
		return fail_plain(why, ENOSPC, "%s: no room for another stretch of time", tracker->path);
	r = store_prepare_area(&tracker->store, area, why);
	if (r < 0)
		return r;
	tracker->store.deltas[area] = delta_new(draft->next_id, area, tracker->store.n_granules);
	if (!tracker->store.deltas[area])
		return fail(why, ENOMEM, "%s", tracker->path);
	draft->deltas[area].id = draft->next_id++;
	draft->recording = area;
	return 0;
}

static int add_missing(struct tracker *tracker, struct catalogue *draft, bool fresh,
                       struct failure *why)
{
	const char *const *names = tracker->settings.names;

	for (unsigned i = 0; names && names[i] && !tracker->settings.read_only; i++) {
		struct subject about = { .bitmap = names[i], .bytes = tracker->settings.size };
		struct bitmap_entry *entry;
		int r;

		if (catalogue_find(draft, names[i]))
			continue;
		if (draft->n_bitmaps == BITMAPS_MAX)
			return fail_plain(why, ENOSPC, "%s: more than %u bitmaps", tracker->path, BITMAPS_MAX);
		r = record_into_new(tracker, draft, why);
		if (r < 0)
			return r;
		entry = &draft->bitmaps[draft->n_bitmaps++];
		*entry = (struct bitmap_entry) { .created = tracker_real_time(), .follows = true };
		(void) snprintf(entry->name, sizeof entry->name, "%s", names[i]);
		tracker_lose_bitmap(entry, fresh ? BITMAP_LOST : BITMAP_GAP, fresh ?
		           "there was no store of bitmaps" : "it was not recorded until now");
		log_event(fresh ? EVENT_BITMAP_LOST : EVENT_BITMAP_GAP, &about, "bitmap %s: %s: all of the "
		          "device counts as changed, until it is cleared", names[i], entry->reason);
	}
	return 0;
}

/* Into use */

/* What recovery found goes to the medium, and then nothing is armed. */
static int settle(struct tracker *tracker, struct failure *why)
{
	uint32_t area = tracker->store.catalogue.recording;
	int r;

	if (area != NO_AREA)
		atomic_store(&tracker->recording, tracker->store.deltas[area]);
	r = recorder_write_back(tracker, why);
	if (r == 0)
		r = recorder_forget_armed(tracker, why);
	return r;
}

/* How many of the armed regions are on the device, which may have shrunk. */
static uint32_t n_within(const struct tracker *tracker, const struct store_recovery *found)
{
	uint32_t n = found->n_armed;

	while (n > 0 && found->regions[n - 1] >= tracker->regions.n)
		n--;
	return n;
}

/* Who only reads leaves the device as it is, and the store as one that nobody has in use: should
 * others write meanwhile, the next one finds out. */
static int leave_at_once(struct tracker *tracker, struct catalogue *draft, struct failure *why)
{
	atomic_store(&tracker->recording, NULL);
	draft->attached = false;
	return store_commit(&tracker->store, draft, why);
}

static int take_into_use(struct tracker *tracker, const struct store_recovery *found, bool fresh,
                         struct failure *why)
{
	const struct tracker_settings *settings = &tracker->settings;
	struct catalogue *draft = draft_of(tracker);
	struct device_trace trace;
	int r;

	if (!draft)
		return fail(why, ENOMEM, "%s", tracker->path);
	tell_recovery(tracker, found, draft);
	check_device(tracker, draft);
	if (fresh)
		trace_take(settings->device_fd, &trace);
	else {
		r = trace_take_synced(settings->device_fd, &trace);
		if (r < 0 && settings->sync_failed)
			settings->sync_failed(settings->userdata, -r);
		foreign_check(tracker, draft, &trace, found->unclean);
	}
	draft->trace = trace;
	r = add_missing(tracker, draft, fresh, why);
	draft->attached = true;
	draft->attached_at = tracker_real_time();
	if (r == 0)
		regions_set_armed(&tracker->regions, found->regions, n_within(tracker, found));
	if (r == 0)
		r = store_affirm(&tracker->store, why);
	if (r == 0)
		r = store_commit(&tracker->store, draft, why);
	if (r == 0)
		r = settle(tracker, why);
	if (r == 0 && settings->read_only)
		r = leave_at_once(tracker, draft, why);
	free(draft);
	bitmaps_publish(tracker);
	return r;
}

static int make_file(struct tracker *tracker, unsigned granule_shift, struct failure *why)
{
	const struct store_geometry geometry = {
		.granule_shift = granule_shift, .region_shift = tracker->settings.region_shift,
		.arm_limit = tracker->settings.arm_limit, .size = tracker->settings.size,
	};
	int r = store_file_make(tracker->path, &geometry, tracker->settings.identity, why);

	if (r < 0)
		return r;
	r = open_file(tracker->path, &tracker->file, why);
	return r == -ENOENT ? fail(why, ENOENT, "%s", tracker->path) : r;
}

static int open_store(struct tracker *tracker, struct store_recovery *found, struct failure *why)
{
	int r;

	tracker->medium = tracker->settings.medium ? tracker->settings.medium : &tracker->file.medium;
	r = store_open(&tracker->store, tracker->medium, found, why);

	if (r < 0) {
		file_medium_close(&tracker->file);
		return r == -EBADMSG ? r : fail_while(why, "%s", tracker->path);
	}
	r = adopt(tracker, why);
	if (r < 0 && !tracker->has_store) {
		store_close(&tracker->store);
		file_medium_close(&tracker->file);
	}
	return r;
}

int tracker_make_store(struct tracker *tracker, unsigned granule_shift, struct failure *why)
{
	struct store_recovery found = { 0 };
	int r = make_file(tracker, granule_shift, why);

	if (r == 0)
		r = open_store(tracker, &found, why);
	if (r == 0)
		r = take_into_use(tracker, &found, true, why);
	if (r == 0)
		log_event(EVENT_BITMAP_STORE_MADE, NULL, "bitmaps are kept in %s", tracker->path);
	return r;
}

static bool wants_bitmaps(const struct tracker *tracker)
{
	const struct tracker_settings *settings = &tracker->settings;

	return settings->names && settings->names[0] && !settings->read_only;
}

/* A store that cannot be read at all is as good as none. */
static int begin_anew(struct tracker *tracker, const struct failure *cause, struct failure *why)
{
	int r;

	log_event(EVENT_BITMAP_LOST, NULL, "%s: %s; it is put aside as %s.bad, and its bitmaps are lost",
	          tracker->path, cause->text, tracker->path);
	*why = (struct failure) { 0 };
	r = put_aside(tracker->path, why);
	return r == 0 && wants_bitmaps(tracker) ?
	       tracker_make_store(tracker, tracker->settings.granule_shift, why) : r;
}

/* A device that is larger than its store was made for gets a larger one. */
static int grow_if_needed(struct tracker *tracker, struct store_recovery *ret, struct failure *why)
{
	struct store_recovery found = { 0 };
	bool grew = false;
	int r = store_grow(tracker->path, &tracker->file.medium, tracker->settings.size, &grew, &found,
	                   why);
	char size[32];

	file_medium_close(&tracker->file);    /* and its lock goes: the new file is another one */
	format_size(tracker->settings.size, size, sizeof size);
	if (!grew)
		return r;
	*ret = found;
	log_event(EVENT_BITMAP_GROWN, NULL, "the device has grown to %s: what is new counts as "
	          "changed in all bitmaps", size);
	return 0;
}

/* Of a folder that may not even be looked into; a store that is there and cannot be kept would
 * miss what is written now. */
static bool may_do_without(const struct tracker *tracker, int r)
{
	return r == -EACCES && !wants_bitmaps(tracker) && access(tracker->path, F_OK) < 0;
}

/* What was found in a store that has given way to a larger one is in `ret`. */
static int open_own_file(struct tracker *tracker, struct store_recovery *ret, struct failure *why)
{
	int r = open_file(tracker->path, &tracker->file, why);

	if (r == 0)
		r = grow_if_needed(tracker, ret, why);
	return r == 0 ? open_file(tracker->path, &tracker->file, why) : r;
}

int tracker_attach(struct tracker *tracker, struct failure *why)
{
	struct store_recovery before = { 0 }, found = { 0 };
	struct failure later = { 0 };
	int r = tracker->settings.medium ? 0 : open_own_file(tracker, &before, why);

	if (r == -ENOENT)
		return wants_bitmaps(tracker) ?
		       tracker_make_store(tracker, tracker->settings.granule_shift, why) : 0;
	if (may_do_without(tracker, r)) {
		log_notice("%s; no bitmaps are kept", why->text);
		*why = (struct failure) { 0 };
		return 0;
	}
	if (r == 0)
		r = open_store(tracker, &found, why);
	store_recovery_add(&found, &before);
	if (r == -EBADMSG) {
		struct failure cause = *why;

		free(found.regions);
		return begin_anew(tracker, &cause, why);
	}
	if (r == 0)
		r = take_into_use(tracker, &found, false, why);
	if (r == 0 && tracker_resolve(tracker, &later) < 0)
		log_warning("%s: %s", tracker->path, later.text);       /* it is tried again */
	free(found.regions);
	return r;
}

static int leave(struct tracker *tracker, struct catalogue *draft, struct failure *why)
{
	int r = recorder_write_back(tracker, why);

	if (r == 0)
		r = recorder_forget_armed(tracker, why);
	if (r < 0)
		return r;
	draft->attached = false;
	trace_take(tracker->settings.device_fd, &draft->trace);
	draft->trace.machine_stopped = atomic_load(&tracker->machine_stops);
	return store_commit(&tracker->store, draft, why);
}

/* Who only read left at once, and watched since: that is told if there was nothing to see. */
static int leave_again(struct tracker *tracker, struct catalogue *draft, struct failure *why)
{
	struct device_trace now;

	trace_take(tracker->settings.device_fd, &now);
	if (!atomic_load(&tracker->machine_stops) || trace_doubt(&draft->trace, &now) ||
	    trace_compare(&draft->trace, &now) != 0)
		return 0;
	draft->trace.machine_stopped = true;
	return store_commit(&tracker->store, draft, why);
}

void tracker_detach(struct tracker *tracker)
{
	struct failure why = { 0 };
	struct catalogue *draft;
	int r;

	if (tracker->has_store && tracker->unusable && !tracker->gone)  /* once more, for what was lost */
		(void) store_commit(&tracker->store, &tracker->store.catalogue, &why);
	if (!tracker->has_store || tracker->unusable)
		return;
	draft = draft_of(tracker);
	if (!draft)
		r = fail(&why, ENOMEM, "%s", tracker->path);
	else if (tracker->settings.read_only)
		r = leave_again(tracker, draft, &why);
	else
		r = leave(tracker, draft, &why);
	if (r < 0)
		log_event(EVENT_BITMAP_STORE_FAILING, NULL, "%s: %s; what may have been written since "
		          "counts as changed at the next start", tracker->path, why.text);
	free(draft);
}
