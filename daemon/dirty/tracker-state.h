/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of a tracker, for tracker.c, attach.c, recorder.c, bitmaps.c and edit.c.
 *
 * Threads: those that change the device (lanes), the recorder, and the main thread.
 *   lanes, regions, the gate        atomics; see tracker.c
 *   `lock`                          what waits for the recorder, and what bitmaps there are
 *   the store, the recording        the recorder's alone
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dirty/regions.h"
#include "dirty/store.h"
#include "dirty/tracker.h"

/* How many changes of one thread are under way.  A cache line each. */
struct lane {
	_Atomic unsigned n __attribute__((aligned(64)));
};

/* A bitmap as readers see it; its entry in the catalogue says the rest. */
struct bitmap {
	uint32_t id;
	unsigned n_users;
	bool locked;                    /* about to change: nobody selects it */
	struct view *view;
	struct view *missed;            /* disabled: what has changed since; else NULL */
};

struct tracker {
	struct tracker_settings settings;       /* with copies of the strings that are used later */
	char *path;
	char *label;
	char *identity;

	struct lane *lanes;
	_Atomic bool gate;              /* closed: no change begins */
	_Atomic bool pressed;           /* changes wait for regions that others are in */
	_Atomic bool machine_stops;
	_Atomic int refuse;             /* an errno: changes must fail (OnBitmapError=stop); or 0 */
	_Atomic(struct delta *) recording;      /* where changes are noted; NULL: nowhere */
	struct regions regions;         /* n is 0 without a store */
	unsigned granule_shift;

	pthread_mutex_t lock;
	pthread_cond_t wake;            /* the recorder: there is something to do */
	pthread_cond_t quiet;           /* the recorder: fewer changes are under way */
	struct change *waiting, **waiting_end;
	struct edit *edits, **edits_end;
	bool shrank;                    /* the device: bitmaps are to be lost */
	bool stop;

	/* Under `lock`; the recorder alone writes them. */
	struct bitmap bitmaps[BITMAPS_MAX];     /* as in store.catalogue */
	uint32_t next_id;
	char failing[BITMAP_REASON_MAX + 1];
	uint64_t n_records, n_page_writes;
	struct catalogue *seen;         /* a copy of the catalogue for readers */

	/* The recorder's (before it runs and after it ended: the main thread's) */
	struct file_medium file;
	struct medium *medium;          /* the file, or what a test has instead */
	struct store store;
	bool has_store;
	bool unusable;                  /* the store must not be touched, but for another commit */
	bool gone;                      /* it has been removed: not even for that */
	struct delta *retired;          /* was recording until the store failed */
	bool held;                      /* EDIT_HOLD: the gate is closed until hold_ends */
	uint64_t hold_ends;             /* monotonic, microseconds */
	uint64_t next_look;             /* for cold regions; likewise; 0: nothing is armed */
	uint32_t *list, *wanted, *victims;      /* room for regions: arm_limit each */
	uint32_t pages[STORE_PAGES_AT_ONCE];
	pthread_t thread;
	bool runs;
};

/* --- tracker.c --- */

uint64_t tracker_now(void);             /* monotonic, microseconds */
uint64_t tracker_real_time(void);       /* microseconds */

/* Whether it touches so many regions that its granules are written down instead. */
bool tracker_is_long(const struct tracker *tracker, const struct change *change);

/* Sets the change's granules. */
void tracker_mark(struct tracker *tracker, struct delta *delta, const struct change *change);

/* The recorder: lets a change that waited go on, if all of its regions are armed. */
bool tracker_grant(struct tracker *tracker, struct change *change);

/* The recorder: no change begins any more; waits until none is under way.  -ETIMEDOUT, and the
 * gate is open again. */
int tracker_close_gate(struct tracker *tracker);
void tracker_open_gate(struct tracker *tracker);

/* --- attach.c --- */

/* Opens or makes the store, and takes it into use. */
int tracker_attach(struct tracker *tracker, struct failure *why);

/* Makes and opens a store where there is none. */
int tracker_make_store(struct tracker *tracker, unsigned granule_shift, struct failure *why);

/* The recorder: what the device's end took with it nobody knows. */
void tracker_lose(struct tracker *tracker, const char *reason);

/* Leaves it clean. */
void tracker_detach(struct tracker *tracker);

/* One bitmap of a catalogue that is not committed yet: from now on it is lost or has a gap, unless it
 * is or has already. */
void tracker_lose_bitmap(struct bitmap_entry *entry, enum bitmap_state state, const char *reason);

/* --- recorder.c --- */

void *tracker_record(void *userdata);   /* the recorder's thread */

/* One round of its work, without waiting for any; with the lock.  True: there is more. */
bool recorder_round(struct tracker *tracker);

/* Writes back all pages that are ahead, durably.  The store failed: see recorder_store_failed(). */
int recorder_write_back(struct tracker *tracker, struct failure *why);

/* The same for the pages of some regions, which are in order. */
int recorder_write_back_regions(struct tracker *tracker, const uint32_t *list, uint32_t n_list,
                                struct failure *why);

/* A long change's granules, durably: nothing has to be armed for it, but recorder_announce_none()
 * called before it is made. */
int recorder_record_exactly(struct tracker *tracker, struct change *change, struct failure *why);

/* From here on a page that is damaged counts as dirty, instead of falling back to what it was before,
 * which is right only where regions are armed. */
int recorder_announce_none(struct tracker *tracker, struct failure *why);

/* Disarms nothing, forgets what is armed: for a delta that begins with no change under way. */
int recorder_forget_armed(struct tracker *tracker, struct failure *why);

/* Makes a record durable: what is armed, and the first pages of tracker->pages as announced. */
int recorder_write_record(struct tracker *tracker, const uint32_t *regions, uint32_t n_regions,
                          uint32_t n_pages, struct failure *why);

/* --- recorder-failure.c --- */

/* What OnBitmapError= says happens now. */
void recorder_store_failed(struct tracker *tracker, const struct failure *why);

/* Why the store cannot be written, for status; "": it can. */
void recorder_note_failing(struct tracker *tracker, const char *text);

/* Looks whether the store takes records again; or at least, that bitmaps are lost. */
void recorder_try_again(struct tracker *tracker);

/* --- bitmaps.c --- */

/* Shows readers what the catalogue and the deltas of the store say now. */
void bitmaps_publish(struct tracker *tracker);
void bitmaps_drop(struct tracker *tracker);

/* The next bitmaps_publish() finds it under its new name. */
void bitmaps_rename(struct tracker *tracker, const char *name, const char *other);

/* It is about to change: nobody may select it until bitmaps_unlock(), which is for all.  -EBUSY
 * when somebody has.  What is not there needs no lock. */
int bitmaps_lock(struct tracker *tracker, const char *name, bool force);
void bitmaps_unlock(struct tracker *tracker);

/* --- edit.c --- */

/* Checkpoints of groups become what has been decided, those that are undecided stay as they are. */
int tracker_resolve(struct tracker *tracker, struct failure *why);
bool tracker_has_pending(const struct tracker *tracker);

/* Carries it out; edit->result and edit->why are set. */
void tracker_carry_out(struct tracker *tracker, struct edit *edit);
