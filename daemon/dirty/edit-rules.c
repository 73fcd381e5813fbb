/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each edit makes of the catalogue.  The cut, where there is one, has been made: what was
 * recorded until now is in frozen deltas, and the recording delta is of no bitmap's past.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "dirty/edit-work.h"

int edit_refuse(struct work *work, int code, const char *sentence)
{
	return fail_plain(&work->edit->why, code, "%s: %s", work->edit->name, sentence);
}

int edit_check_name(struct work *work, const char *name)
{
	size_t len = strlen(name);
	bool plain = len > 0 && is_utf8((struct span) { (const uint8_t *) name, len });

	for (const char *at = name; plain && *at; at++)
		plain = (unsigned char) *at > ' ' && *at != 0x7f;
	if (plain)
		return 0;
	return fail_plain(&work->edit->why, EINVAL, "\"%s\": a name is 1 to %u bytes of UTF-8 without "
	                  "blanks and control characters", name, BITMAP_NAME_MAX);
}

static void set_state(struct bitmap_entry *entry, enum bitmap_state state, const char *reason)
{
	entry->state = state;
	entry->state_since = tracker_real_time();
	(void) snprintf(entry->reason, sizeof entry->reason, "%s", reason);
}

/* What each does */

static int make_entry(struct work *work, struct bitmap_entry **ret)
{
	struct catalogue *draft = work->draft;
	struct bitmap_entry *entry;

	if (draft->n_bitmaps == BITMAPS_MAX)
		return edit_refuse(work, ENOSPC, "an export has at most 60 bitmaps; remove one");
	entry = &draft->bitmaps[draft->n_bitmaps++];
	*entry = (struct bitmap_entry) { .created = tracker_real_time() };
	(void) snprintf(entry->name, sizeof entry->name, "%s", work->edit->name);
	*ret = entry;
	return 0;
}

static int apply_add(struct work *work, struct bitmap_entry *entry)
{
	bool disabled = work->edit->disabled;
	int r = make_entry(work, &entry);

	if (r < 0)
		return r;
	entry->checkpoint = work->edit->kind == EDIT_CHECKPOINT;
	entry->pending = work->edit->group[0] != '\0';
	memcpy(entry->group, work->edit->group, sizeof entry->group);
	entry->follows = !disabled;
	entry->watches = disabled;
	set_state(entry, disabled ? BITMAP_DISABLED : BITMAP_RECORDING, "");
	return 0;
}

static int apply_clear(struct work *work, struct bitmap_entry *entry)
{
	bool disabled = entry->state == BITMAP_DISABLED;

	if (entry->checkpoint)
		return edit_refuse(work, EPERM, "a checkpoint is not cleared; make a new one, and delete this");
	if (entry->state == BITMAP_FROZEN)
		return edit_refuse(work, EPERM, "it is frozen: it never changes");
	entry->shows = entry->missed = (struct area_set) { 0 };
	entry->follows = !disabled;
	entry->watches = disabled;
	set_state(entry, disabled ? BITMAP_DISABLED : BITMAP_RECORDING, "");
	return 0;
}

static int apply_disable(struct work *work, struct bitmap_entry *entry)
{
	if (entry->state != BITMAP_RECORDING)
		return edit_refuse(work, EINVAL, "it does not record");
	entry->follows = false;
	entry->watches = true;
	set_state(entry, BITMAP_DISABLED, "");
	return 0;
}

static bool all_empty(const struct work *work, const struct area_set *areas)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (area_in(areas, area) && !delta_is_empty(work->tracker->store.deltas[area]))
			return false;
	return true;
}

static int apply_enable(struct work *work, struct bitmap_entry *entry)
{
	if (entry->state != BITMAP_DISABLED)
		return edit_refuse(work, EINVAL, "it is not disabled");
	if (all_empty(work, &entry->missed))
		set_state(entry, BITMAP_RECORDING, "");
	else
		set_state(entry, BITMAP_GAP, "something was written while it was disabled");
	entry->follows = true;
	entry->watches = false;
	entry->missed = (struct area_set) { 0 };
	return 0;
}

static void remove_entry(struct catalogue *draft, struct bitmap_entry *entry)
{
	size_t n_after = (size_t) (&draft->bitmaps[draft->n_bitmaps] - entry - 1);

	memmove(entry, entry + 1, n_after * sizeof *entry);
	draft->n_bitmaps--;
}

static int apply_remove(struct work *work, struct bitmap_entry *entry)
{
	remove_entry(work->draft, entry);
	return 0;
}

static void resolve(struct catalogue *draft, struct bitmap_entry *entry,
                    enum group_decision decision)
{
	const struct subject about = { .bitmap = entry->name };

	if (decision == GROUP_COMMITTED || decision == GROUP_ABORTED)
		log_event(EVENT_BITMAP_CHANGED, &about, "checkpoint %s of several exports is %s",
		          entry->name, decision == GROUP_COMMITTED ? "made" : "given up");
	if (decision == GROUP_ABORTED)
		remove_entry(draft, entry);
	else if (decision == GROUP_COMMITTED) {
		entry->pending = false;
		entry->group[0] = '\0';
	}
}

/* From the end, since what goes makes others move up. */
static int apply_resolve(struct work *work, struct bitmap_entry *none)
{
	const struct tracker_settings *settings = &work->tracker->settings;
	struct catalogue *draft = work->draft;

	(void) none;
	for (unsigned i = draft->n_bitmaps; i-- > 0;)
		if (draft->bitmaps[i].pending)
			resolve(draft, &draft->bitmaps[i], settings->decided(draft->bitmaps[i].group));
	return 0;
}

static int apply_rename(struct work *work, struct bitmap_entry *entry)
{
	const char *other = work->edit->other;
	int r = edit_check_name(work, other);

	if (r < 0)
		return r;
	if (catalogue_find(work->draft, other))
		return fail_plain(&work->edit->why, EEXIST, "%s: there is a bitmap of that name", other);
	(void) snprintf(entry->name, sizeof entry->name, "%s", other);
	return 0;
}

static struct bitmap_entry *find_source(struct work *work, unsigned i)
{
	const char *name = work->edit->sources[i];
	struct bitmap_entry *source = catalogue_find(work->draft, name);

	if (source && source->pending)
		source = NULL;
	if (!source)
		(void) fail_plain(&work->edit->why, ENOENT, "%s: there is no such bitmap", name);
	return source;
}

static bool shows_everything(const struct bitmap_entry *entry)
{
	return entry->state == BITMAP_GAP || entry->state == BITMAP_LOST;
}

/* Also one that is disabled and has missed something. */
static bool has_lost_track(const struct work *work, const struct bitmap_entry *entry)
{
	return shows_everything(entry) ||
	       (entry->state == BITMAP_DISABLED && !all_empty(work, &entry->missed));
}

static int merge_one(struct work *work, struct bitmap_entry *entry,
                     const struct bitmap_entry *source)
{
	char reason[BITMAP_REASON_MAX + 1];

	for (size_t i = 0; i < sizeof entry->shows.bits / sizeof *entry->shows.bits; i++)
		entry->shows.bits[i] |= source->shows.bits[i];
	if (shows_everything(entry) || !has_lost_track(work, source))
		return 0;
	(void) snprintf(reason, sizeof reason, "merged with one that had lost track (%.80s)",
	                source->name);
	set_state(entry, BITMAP_GAP, reason);
	if (entry->watches)
		entry->follows = true;
	entry->watches = false;
	entry->missed = (struct area_set) { 0 };
	return 0;
}

static int apply_merge(struct work *work, struct bitmap_entry *entry)
{
	int r = 0;

	if (entry->checkpoint || entry->state == BITMAP_FROZEN)
		return edit_refuse(work, EPERM, "a checkpoint or a frozen bitmap takes nothing in");
	for (unsigned i = 0; i < work->edit->n_sources && r == 0; i++) {
		const struct bitmap_entry *source = find_source(work, i);

		r = source ? merge_one(work, entry, source) : -work->edit->why.code;
	}
	return r;
}

/* A newer checkpoint's deltas are a part of an older one's, since nothing is ever merged into either. */
static int subtract(struct work *work, struct area_set *areas, const struct bitmap_entry *newer)
{
	for (size_t i = 0; i < sizeof areas->bits / sizeof *areas->bits; i++) {
		if (newer->shows.bits[i] & ~areas->bits[i])
			return edit_refuse(work, EINVAL, "the second checkpoint is older than the first");
		areas->bits[i] &= ~newer->shows.bits[i];
	}
	return 0;
}

static int apply_delta(struct work *work, struct bitmap_entry *entry)
{
	struct bitmap_entry *from = find_source(work, 0), *to = NULL;
	struct area_set areas;
	int r = 0;

	if (!from || (work->edit->n_sources > 1 && !(to = find_source(work, 1))))
		return -work->edit->why.code;
	if (!from->checkpoint || (to && !to->checkpoint))
		return edit_refuse(work, EINVAL, "a delta is taken between checkpoints");
	if (has_lost_track(work, from) || (to && has_lost_track(work, to)))
		return edit_refuse(work, EINVAL, "one of the checkpoints has lost track: make a new one");
	areas = from->shows;
	if (to)
		r = subtract(work, &areas, to);
	if (r == 0)
		r = make_entry(work, &entry);
	if (r < 0)
		return r;
	entry->shows = areas;
	set_state(entry, BITMAP_FROZEN, "");
	return 0;
}

const struct edit_rule edit_rules[] = {
	[EDIT_ADD] = { .makes = true, .cuts = true, .apply = apply_add },
	[EDIT_CHECKPOINT] = { .makes = true, .cuts = true, .apply = apply_add },
	[EDIT_CLEAR] = { .changes = true, .cuts = true, .apply = apply_clear },
	[EDIT_ENABLE] = { .changes = true, .cuts = true, .apply = apply_enable },
	[EDIT_DISABLE] = { .changes = true, .cuts = true, .apply = apply_disable },
	[EDIT_REMOVE] = { .changes = true, .apply = apply_remove },
	[EDIT_RENAME] = { .changes = true, .apply = apply_rename },
	[EDIT_MERGE] = { .changes = true, .cuts = true, .apply = apply_merge },
	[EDIT_RESOLVE] = { .nameless = true, .apply = apply_resolve },
	[EDIT_DELTA] = { .makes = true, .cuts = true, .apply = apply_delta },
};
