/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the store fails: what OnBitmapError= says.
 *
 * "lost" makes it durable that bitmaps are lost before any change goes on; without a store to write
 * that to, the store goes.  "stop" refuses changes until what memory knows is on the medium again.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "dirty/tracker-state.h"

void recorder_note_failing(struct tracker *tracker, const char *text)
{
	pthread_mutex_lock(&tracker->lock);
	(void) snprintf(tracker->failing, sizeof tracker->failing, "%.*s",
	                (int) BITMAP_REASON_MAX, text);
	pthread_mutex_unlock(&tracker->lock);
}

static void stop_changes(struct tracker *tracker, const struct failure *why)
{
	recorder_note_failing(tracker, why->text);
	if (atomic_exchange(&tracker->refuse, why->code ? why->code : EIO) == 0)
		log_event(EVENT_BITMAP_STORE_FAILING, NULL, "%s: %s; writes fail until bitmaps can be "
		          "kept again", tracker->path, why->text);
}

/* All that records has lost track, and nothing is recorded any more. */
static void lose_all(struct catalogue *catalogue, const char *reason)
{
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++) {
		struct bitmap_entry *entry = &catalogue->bitmaps[i];

		if (!entry->follows && !entry->watches)
			continue;
		entry->state = BITMAP_LOST;
		entry->state_since = tracker_real_time();
		entry->follows = entry->watches = false;
		(void) snprintf(entry->reason, sizeof entry->reason, "%.*s", (int) BITMAP_REASON_MAX,
		                reason);
	}
	catalogue->recording = NO_AREA;
}

static int sync_folder(const char *file)
{
	char path[PATH_MAX];
	int fd, r;

	(void) snprintf(path, sizeof path, "%s", file);
	fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/*
 * Whether what was done in the folder is durable.  A sync alone does not tell: on ext4 it fails for
 * whoever asks first, and then succeeds, although nothing is written any more.  But a file system
 * that has failed takes no changes: one before the sync, and one after it.
 */
static int make_removal_durable(const char *path)
{
	char probe[PATH_MAX];
	int fd, r;

	if (snprintf(probe, sizeof probe, "%s.gone", path) >= (int) sizeof probe)
		return -ENAMETOOLONG;
	if (unlink(probe) < 0 && errno != ENOENT)
		return -errno;
	fd = open(probe, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	r = sync_folder(path);
	if (unlink(probe) < 0 && r == 0)
		r = -errno;
	return r;
}

/* The last resort: without a file, the next start counts everything as dirty. */
static int take_store_away(struct tracker *tracker)
{
	int r;

	if (tracker->settings.medium)
		return -EIO;
	if (unlink(tracker->path) < 0 && errno != ENOENT)
		return -errno;
	r = make_removal_durable(tracker->path);
	tracker->gone = r == 0;
	return r;
}

static void go_on_without(struct tracker *tracker, const struct failure *why)
{
	struct delta *delta = atomic_exchange(&tracker->recording, NULL);

	if (delta) {            /* threads may still be setting bits in it; in the one before, nobody */
		delta_unref(tracker->retired);
		tracker->retired = delta_ref(delta);
	}
	regions_forget(&tracker->regions);
	recorder_note_failing(tracker, why->text);
	atomic_store(&tracker->refuse, 0);
	log_event(EVENT_BITMAP_LOST, NULL, "%s: %s; bitmaps are lost: all of the device counts as "
	          "changed, until they are cleared", tracker->path, why->text);
	bitmaps_publish(tracker);
	tracker->settings.changed(tracker->settings.userdata);
}

void recorder_store_failed(struct tracker *tracker, const struct failure *why)
{
	struct catalogue *draft;
	struct failure again = { 0 };
	int r = -ENOMEM;

	if (tracker->settings.on_error == TRACKER_STOP) {
		stop_changes(tracker, why);
		return;
	}
	draft = malloc(sizeof *draft);
	if (draft) {
		*draft = tracker->store.catalogue;
		lose_all(draft, why->text);
		r = tracker->gone ? 0 : store_commit(&tracker->store, draft, &again);
		tracker->unusable = tracker->gone || r < 0;
		if (r < 0)
			r = take_store_away(tracker);
		if (r == 0 && tracker->gone)
			tracker->store.catalogue = *draft;
		free(draft);
	}
	if (r < 0) {            /* not even that could be made durable */
		stop_changes(tracker, why);
		return;
	}
	go_on_without(tracker, why);
}

/* What an edit may have left half written is written again, as it was before. */
static int settle_store(struct tracker *tracker, struct failure *why)
{
	const struct regions *regions = &tracker->regions;

	if (tracker->unusable && store_commit(&tracker->store, &tracker->store.catalogue, why) < 0)
		return -why->code;
	tracker->unusable = false;
	return recorder_write_record(tracker, regions->armed, regions->n_armed, 0, why);
}

void recorder_try_again(struct tracker *tracker)
{
	struct failure why = { 0 };

	if (tracker->settings.on_error == TRACKER_LOST) {
		(void) fail_plain(&why, EIO, "%s", tracker->failing);
		recorder_store_failed(tracker, &why);
		return;
	}
	if (settle_store(tracker, &why) < 0)
		return;
	recorder_note_failing(tracker, "");
	atomic_store(&tracker->refuse, 0);
	log_event(EVENT_BITMAP_CHANGED, NULL, "%s: bitmaps can be kept again; writes go on",
	          tracker->path);
}
