/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps an export's bitmaps true: what every change of the device goes through.
 *
 * Before a change is submitted its granules are set in memory, and its regions must be armed: a
 * record on the medium says that they may have changed.  That costs a change nothing where
 * its regions are armed already, and waits for the recorder's thread where not; the
 * recorder makes many regions durable at once.  A change of many regions arms none: its granules
 * are made durable before it is submitted.  See docs/dirty-tracking.md for the order of
 * everything.
 *
 * Who calls what: tracker_begin() and tracker_end(), the threads that change the device, each in a
 * lane of its own; everything else, the export's main thread, but for what is marked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "base/group-file.h"
#include "dirty/catalogue.h"
#include "dirty/view.h"

struct medium;
struct tracker;

/* What to do once the store fails. */
enum tracker_on_error {
	TRACKER_LOST,                   /* say durably that bitmaps are lost; changes go on */
	TRACKER_STOP,                   /* changes fail */
};

struct tracker_settings {
	const char *label;              /* of the export, for messages */
	const char *path;               /* the store's file; its folder exists */
	const char *device;             /* its path, for messages and for what the kernel counts */
	int device_fd;
	const char *identity;           /* of the device */
	uint64_t size;                  /* bytes of it */
	bool read_only;                 /* the export changes nothing: nothing is recorded */
	unsigned granule_shift;         /* for a store that has to be made: see store.h */
	unsigned region_shift;
	uint32_t arm_limit;             /* regions */
	unsigned cold_seconds;          /* without a change until a region is disarmed */
	enum tracker_on_error on_error;
	const char *const *names;       /* bitmaps that must exist: Bitmap=; NULL-terminated, or NULL */
	unsigned n_lanes;

	/* In the recorder's thread: makes durable what the device has taken.  0 or a negative errno. */
	int (*flush)(void *userdata);
	/* In tracker_open(): a sync of the device failed, with an errno that no flush is told again;
	 * NULL in tests alone. */
	void (*sync_failed)(void *userdata, int error);
	/* In the recorder's thread: bitmaps have come, gone, or changed their state. */
	void (*changed)(void *userdata);
	/* What has become of the group of checkpoints of that id: group_look(). */
	enum group_decision (*decided)(const char *group);
	void *userdata;

	/* Of tests: a medium with a store on it, instead of the file, and no thread of its own. */
	struct medium *medium;
};

/*
 * Opens the store if there is one, takes it for this device, and says what it found: an unclean
 * end, another device, writes by others.  Without a store (and without names) it only counts what
 * is under way, until the first bitmap is added.
 */
int tracker_open(struct tracker **ret, const struct tracker_settings *settings, struct failure *why);

/* When nothing is under way any more: writes everything, leaves the store clean, ends the thread. */
void tracker_close(struct tracker *tracker);

/* The machine stops, and the export with it: when it is left now, others have no time to write before
 * the machine is off.  Any thread. */
void tracker_machine_stops(struct tracker *tracker);

/* --- changes: any thread, in its lane --- */

struct change {
	uint64_t start, end;            /* bytes that may change; start < end */
	unsigned lane;
	void (*granted)(struct change *change); /* in the recorder's thread */
	int refused;                    /* an errno, once it may go on: the change must not be made */
	bool entered, tracked, recorded;        /* the tracker's */
	struct change *next;            /* the tracker's, while it waits */
};

/* True: go on, or fail if change->refused.  False: granted() comes later; then the same. */
bool tracker_begin(struct tracker *tracker, struct change *change);

/* The change is over, whether it succeeded or not.  After every tracker_begin(), once. */
void tracker_end(struct tracker *tracker, struct change *change);

/* Any thread: the device has become smaller, if only for a while.  Bitmaps are lost. */
void tracker_device_shrank(struct tracker *tracker);

/* --- what is there: any thread --- */

struct bitmap_info {
	uint32_t id;                    /* 2 and up; never used again in this process */
	char name[BITMAP_NAME_MAX + 1];
	enum bitmap_state state;
	char reason[BITMAP_REASON_MAX + 1];
	bool checkpoint;
	uint64_t created, state_since;  /* microseconds, real time */
	uint32_t granularity;           /* bytes */
	unsigned n_users;               /* clients that selected it */
};

/* At most BITMAPS_MAX, in the order of their making. */
unsigned tracker_list(struct tracker *tracker, struct bitmap_info ret[BITMAPS_MAX]);

/* What the bitmap shows now, with a reference for the caller; NULL when it is not there (any more)
 * or memory is short. */
struct view *tracker_view(struct tracker *tracker, uint32_t id);

/* A client selects the bitmap, or lets go of it.  False: not there, or about to change. */
bool tracker_use(struct tracker *tracker, uint32_t id);
void tracker_unuse(struct tracker *tracker, uint32_t id);

/* The store as a whole, for status and show. */
struct tracker_status {
	char path[4096];
	bool has_store;
	bool recording;                 /* some bitmap records */
	unsigned granule_shift, region_shift;
	uint32_t arm_limit, n_armed;    /* regions */
	unsigned n_pending;             /* checkpoints whose group is not decided */
	uint64_t unclean_ends, over_reported;   /* see struct catalogue */
	uint64_t n_records, n_page_writes;      /* since the start */
	char failing[BITMAP_REASON_MAX + 1];    /* why the store cannot be written; empty: it can */
};
void tracker_status(struct tracker *tracker, struct tracker_status *ret);

/* --- edits: run in the recorder's thread, one after another, while clients go on --- */

enum edit_kind {
	EDIT_ADD,                       /* name: records from here on */
	EDIT_CHECKPOINT,                /* the same, as a checkpoint */
	EDIT_CLEAR,                     /* name: begins anew, also from gap and lost */
	EDIT_ENABLE, EDIT_DISABLE,      /* name */
	EDIT_REMOVE,                    /* name */
	EDIT_RENAME,                    /* name to other */
	EDIT_MERGE,                     /* name gets what the `sources` show now, too */
	EDIT_DELTA,                     /* name: a frozen one of what changed from checkpoint
	                                 * sources[0] to sources[1], or until now without that */
	EDIT_RESOLVE,                   /* checkpoints of groups become what has been decided; -EAGAIN:
	                                 * not all, since that cannot be read yet */
	EDIT_HOLD,                      /* stop changes, finish what is under way, flush the device; until
	                                 * EDIT_RELEASE, or for ten seconds */
	EDIT_RELEASE,
};

struct edit {
	enum edit_kind kind;
	char name[BITMAP_NAME_MAX + 1];
	char other[BITMAP_NAME_MAX + 1];
	const char *const *sources;     /* the caller's until done() */
	unsigned n_sources;
	uint32_t granularity;           /* EDIT_ADD: bytes; 0: the store's, or the default */
	bool disabled;                  /* EDIT_ADD: does not record yet */
	bool force;                     /* although clients have selected it */
	bool held;                      /* only while EDIT_HOLD is in force */
	char group[GROUP_ID_SIZE];      /* EDIT_CHECKPOINT: nobody sees it before that is decided; or "" */
	void (*done)(struct edit *edit);        /* in the recorder's thread; the edit is the caller's again */
	int result;                     /* 0, or a negative errno: -EEXIST, -ENOENT, -EBUSY (in use), ... */
	struct failure why;             /* the sentence for the user */
	struct edit *next;              /* the tracker's */
};

void tracker_edit(struct tracker *tracker, struct edit *edit);
