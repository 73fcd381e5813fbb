/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tracker with real threads and files: changes from several lanes, edits beside them, and
 * processes that are killed in the middle of it.
 *
 * A change is "made" as soon as tracker_begin() has let it pass, so that is when the truth is
 * written down; a bitmap that has begun before must show it from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "dirty/store.h"
#include "dirty/tracker.h"
#include "scratch.h"

#define GRANULE (UINT64_C(64) << 10)
#define REGION_SHIFT 17u
#define N_GRANULES 2048u
#define SIZE (N_GRANULES * GRANULE)
#define N_LANES 3u
#define PATIENCE 30u                    /* seconds */

/* The device of a test, and its tracker. */
struct rig {
	struct scratch scratch;
	char store[128], disk[128];
	int fd;
	_Atomic int flush_error;
	_Atomic unsigned n_flushes, n_changed;
	struct tracker *tracker;
	struct tracker_settings settings;
	struct failure why;
};

static int flush(void *userdata)
{
	struct rig *rig = userdata;

	rig->n_flushes++;
	return rig->flush_error;
}

static void changed(void *userdata)
{
	struct rig *rig = userdata;

	rig->n_changed++;
}

static void rig_up(struct rig *rig)
{
	memset(rig, 0, sizeof *rig);
	rig->scratch = scratch_start();
	(void) snprintf(rig->store, sizeof rig->store, "%s/bitmaps", rig->scratch.dir);
	(void) snprintf(rig->disk, sizeof rig->disk, "%s/disk", rig->scratch.dir);
	rig->fd = open(rig->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(rig->fd >= 0 && ftruncate(rig->fd, (off_t) SIZE) == 0);
	rig->settings = (struct tracker_settings) {
		.label = "web1", .path = rig->store, .device = rig->disk, .device_fd = rig->fd,
		.identity = "disk-1", .size = SIZE, .granule_shift = 16, .region_shift = REGION_SHIFT,
		.arm_limit = 64, .cold_seconds = 1, .n_lanes = N_LANES,
		.flush = flush, .changed = changed, .userdata = rig,
	};
}

static int rig_open(struct rig *rig)
{
	rig->why = (struct failure) { 0 };
	return tracker_open(&rig->tracker, &rig->settings, &rig->why);
}

static void rig_close(struct rig *rig)
{
	tracker_close(rig->tracker);
	rig->tracker = NULL;
}

static void rig_down(struct rig *rig)
{
	rig_close(rig);
	close(rig->fd);
	scratch_end(&rig->scratch);
}

static void make_sure(struct rig *rig)
{
	int r = rig_open(rig);

	CHECK_STR("opened", rig->why.text, "");
	if (r < 0)
		exit(1);
}

/* Waiting for what another thread says */

struct waiter {
	sem_t sem;
	union {
		struct edit edit;
		struct change change;
	};
};

static void on_edited(struct edit *edit)
{
	sem_post(&container_of(edit, struct waiter, edit)->sem);
}

static void on_granted(struct change *change)
{
	sem_post(&container_of(change, struct waiter, change)->sem);
}

static bool wait_for(struct waiter *waiter)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE;
	while (sem_timedwait(&waiter->sem, &until) < 0)
		if (errno != EINTR)
			return false;
	return true;
}

static int edit_with(struct rig *rig, const struct edit *what)
{
	struct waiter waiter = { .edit = *what };

	sem_init(&waiter.sem, 0, 0);
	waiter.edit.done = on_edited;
	tracker_edit(rig->tracker, &waiter.edit);
	CHECK(wait_for(&waiter));
	sem_destroy(&waiter.sem);
	rig->why = waiter.edit.why;
	return waiter.edit.result;
}

static int edit(struct rig *rig, enum edit_kind kind, const char *name)
{
	struct edit what = { .kind = kind };

	(void) snprintf(what.name, sizeof what.name, "%s", name);
	return edit_with(rig, &what);
}

/* Begins a change; true once it may be made. */
static bool begin(struct tracker *tracker, struct waiter *waiter, uint64_t start, uint64_t end,
                  unsigned lane)
{
	sem_init(&waiter->sem, 0, 0);
	waiter->change = (struct change) {
		.start = start, .end = end, .lane = lane, .granted = on_granted,
	};
	return tracker_begin(tracker, &waiter->change) || wait_for(waiter);
}

static int make_change(struct rig *rig, uint64_t start, uint64_t length)
{
	struct waiter waiter;
	int refused;

	CHECK(begin(rig->tracker, &waiter, start, start + length, 0));
	refused = waiter.change.refused;
	tracker_end(rig->tracker, &waiter.change);
	sem_destroy(&waiter.sem);
	return refused;
}

/* What a bitmap shows */

static bool find_info(struct rig *rig, const char *name, struct bitmap_info *ret)
{
	static struct bitmap_info infos[BITMAPS_MAX];
	unsigned n = tracker_list(rig->tracker, infos);

	for (unsigned i = 0; i < n; i++)
		if (strcmp(infos[i].name, name) == 0) {
			*ret = infos[i];
			return true;
		}
	return false;
}

static const char *state_of(struct rig *rig, const char *name)
{
	struct bitmap_info info = { 0 };

	return find_info(rig, name, &info) ? bitmap_state_word(info.state) : "none";
}

static struct view *view_of(struct rig *rig, const char *name)
{
	struct bitmap_info info = { 0 };

	return find_info(rig, name, &info) ? tracker_view(rig->tracker, info.id) : NULL;
}

static uint64_t dirty_granules(struct rig *rig, const char *name)
{
	struct view *view = view_of(rig, name);
	uint64_t bytes = view ? view_dirty_bytes(view) : UINT64_MAX;

	view_unref(view);
	return bytes / GRANULE;
}

static bool is_dirty(const struct view *view, uint64_t granule)
{
	uint64_t end;

	return view_extent(view, granule * GRANULE, SIZE, &end);
}

/* Leaves the store as a kill does between the two steps of the last bitmap's removal. */
static void arm_for_nobody(struct rig *rig)
{
	static struct catalogue draft;
	static struct store store;
	const uint32_t regions[] = { 3 };
	struct store_recovery found;
	struct file_medium file;

	file_medium_init(&file, open(rig->store, O_RDWR | O_CLOEXEC));
	CHECK_EQ("open", store_open(&store, &file.medium, &found, &rig->why), 0);
	draft = store.catalogue;
	draft.attached = true;
	CHECK_EQ("commit", store_commit(&store, &draft, &rig->why), 0);
	CHECK_EQ("record", store_write_record(&store, &(struct store_record) {
		.regions = regions, .n_regions = 1 }, &rig->why), 0);
	store_close(&store);
	file_medium_close(&file);
}

/* Pages that may be torn, as the store says that nobody has in use. */
static uint32_t n_announced(struct rig *rig)
{
	static struct store store;
	struct store_recovery found;
	struct file_medium file;
	uint32_t n;

	file_medium_init(&file, open(rig->store, O_RDWR | O_CLOEXEC));
	CHECK_EQ("open", store_open(&store, &file.medium, &found, &rig->why), 0);
	n = store.n_announced;
	free(found.regions);
	store_close(&store);
	file_medium_close(&file);
	return n;
}

/* One thread at a time */

TEST(without_bitmaps_there_is_no_store_and_changes_pass)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("refused", make_change(&rig, 0, 4096), 0);
	CHECK(access(rig.store, F_OK) < 0);
	rig_down(&rig);
}

TEST(a_bitmap_shows_what_changed_since_it_was_added_and_keeps_it_over_a_restart)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("before", make_change(&rig, 5 * GRANULE, 1), 0);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("empty", dirty_granules(&rig, "b"), 0);
	CHECK_EQ("one", make_change(&rig, 7 * GRANULE, 1), 0);
	CHECK_EQ("two, over an edge", make_change(&rig, 9 * GRANULE - 1, 2), 0);
	CHECK_EQ("three", dirty_granules(&rig, "b"), 3);
	rig_close(&rig);
	make_sure(&rig);
	CHECK_STR("state", state_of(&rig, "b"), "recording");
	CHECK_EQ("as before", dirty_granules(&rig, "b"), 3);
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
	CHECK_EQ("cleared", dirty_granules(&rig, "b"), 0);
	rig_down(&rig);
}

TEST(a_change_of_many_regions_arms_none_and_is_exact_after_a_crash)
{
	struct tracker_status status;
	struct rig rig;
	pid_t child;
	int end;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("long", make_change(&rig, 3 * GRANULE, 1000 * GRANULE), 0);
	tracker_status(rig.tracker, &status);
	CHECK_EQ("armed", status.n_armed, 0);
	rig_close(&rig);

	child = fork();
	if (child == 0) {
		make_sure(&rig);
		_exit(make_change(&rig, 1100 * GRANULE, 500 * GRANULE));
	}
	CHECK(waitpid(child, &end, 0) == child && end == 0);
	CHECK_EQ("announced, so that damage would go unnoticed", n_announced(&rig), 0);
	make_sure(&rig);
	CHECK_EQ("exactly", dirty_granules(&rig, "b"), 1500);
	rig_down(&rig);
}

TEST(bitmaps_begin_each_at_its_own_time)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	for (unsigned i = 0; i < 20; i++) {
		char name[8];

		(void) snprintf(name, sizeof name, "b%u", i);
		CHECK_EQ(name, edit(&rig, EDIT_ADD, name), 0);
		CHECK_EQ(name, make_change(&rig, i * GRANULE, 1), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		char name[8];

		(void) snprintf(name, sizeof name, "b%u", i);
		CHECK_EQ(name, dirty_granules(&rig, name), 20 - i);
	}
	rig_down(&rig);
}

TEST(clearing_one_bitmap_every_day_does_not_fill_the_store_beside_another)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("old", edit(&rig, EDIT_ADD, "old"), 0);
	CHECK_EQ("daily", edit(&rig, EDIT_ADD, "daily"), 0);
	for (unsigned day = 0; day < 300; day++) {
		CHECK_EQ("change", make_change(&rig, day % 100 * GRANULE, 1), 0);
		CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "daily"), 0);
	}
	CHECK_EQ("old", dirty_granules(&rig, "old"), 100);
	CHECK_EQ("daily", dirty_granules(&rig, "daily"), 0);
	rig_down(&rig);
}

TEST(a_change_while_disabled_makes_a_gap)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("change", make_change(&rig, 0, 1), 0);
	CHECK_EQ("disable", edit(&rig, EDIT_DISABLE, "b"), 0);
	CHECK_STR("disabled", state_of(&rig, "b"), "disabled");
	CHECK_EQ("enable", edit(&rig, EDIT_ENABLE, "b"), 0);
	CHECK_STR("nothing missed", state_of(&rig, "b"), "recording");
	CHECK_EQ("shows", dirty_granules(&rig, "b"), 1);

	CHECK_EQ("disable", edit(&rig, EDIT_DISABLE, "b"), 0);
	CHECK_EQ("change", make_change(&rig, 4 * GRANULE, 1), 0);
	CHECK_STR("at once", state_of(&rig, "b"), "gap");
	CHECK_EQ("everything", dirty_granules(&rig, "b"), N_GRANULES);
	CHECK_EQ("enable", edit(&rig, EDIT_ENABLE, "b"), 0);
	CHECK_STR("for good", state_of(&rig, "b"), "gap");
	rig_close(&rig);
	make_sure(&rig);
	CHECK_STR("after a restart", state_of(&rig, "b"), "gap");
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
	CHECK_STR("cleared", state_of(&rig, "b"), "recording");
	CHECK_EQ("nothing", dirty_granules(&rig, "b"), 0);
	rig_down(&rig);
}

TEST(checkpoints_have_deltas_between_them)
{
	const char *sources[] = { "c1", "c2" };
	const char *wrong[] = { "c2", "c1" };
	struct edit delta = { .kind = EDIT_DELTA, .name = "d", .sources = sources, .n_sources = 2 };
	struct edit now = { .kind = EDIT_DELTA, .name = "n", .sources = sources + 1, .n_sources = 1 };
	struct edit bad = { .kind = EDIT_DELTA, .name = "x", .sources = wrong, .n_sources = 2 };
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("c1", edit(&rig, EDIT_CHECKPOINT, "c1"), 0);
	CHECK_EQ("first", make_change(&rig, 0, 2 * GRANULE), 0);
	CHECK_EQ("c2", edit(&rig, EDIT_CHECKPOINT, "c2"), 0);
	CHECK_EQ("second", make_change(&rig, 10 * GRANULE, GRANULE), 0);
	CHECK_EQ("delta", edit_with(&rig, &delta), 0);
	CHECK_EQ("between", dirty_granules(&rig, "d"), 2);
	CHECK_EQ("until now", edit_with(&rig, &now), 0);
	CHECK_EQ("second", make_change(&rig, 20 * GRANULE, GRANULE), 0);
	CHECK_EQ("since c2, then", dirty_granules(&rig, "n"), 1);
	CHECK_EQ("since c2", dirty_granules(&rig, "c2"), 2);
	CHECK_STR("frozen", state_of(&rig, "d"), "frozen");
	CHECK_EQ("older", edit_with(&rig, &bad), -EINVAL);
	CHECK_EQ("cleared", edit(&rig, EDIT_CLEAR, "c1"), -EPERM);
	rig_down(&rig);
}

TEST(a_merge_takes_in_what_the_source_shows_then)
{
	const char *sources[] = { "a" };
	struct edit merge = { .kind = EDIT_MERGE, .name = "b", .sources = sources, .n_sources = 1 };
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("a", edit(&rig, EDIT_ADD, "a"), 0);
	CHECK_EQ("change", make_change(&rig, 0, GRANULE), 0);
	CHECK_EQ("b", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("disable", edit(&rig, EDIT_DISABLE, "a"), 0);
	CHECK_EQ("merge", edit_with(&rig, &merge), 0);
	CHECK_EQ("b", dirty_granules(&rig, "b"), 1);
	CHECK_EQ("remove", edit(&rig, EDIT_REMOVE, "a"), 0);
	CHECK_EQ("b still", dirty_granules(&rig, "b"), 1);
	CHECK_EQ("no such", edit_with(&rig, &merge), -ENOENT);
	rig_down(&rig);
}

TEST(what_a_client_has_selected_is_busy)
{
	struct edit forced = { .kind = EDIT_REMOVE, .name = "c", .force = true };
	struct edit rename = { .kind = EDIT_RENAME, .name = "b", .other = "c" };
	struct bitmap_info info = { 0 };
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK(find_info(&rig, "b", &info));
	CHECK(tracker_use(rig.tracker, info.id));
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), -EBUSY);
	CHECK_EQ("remove", edit(&rig, EDIT_REMOVE, "b"), -EBUSY);
	CHECK_EQ("rename", edit_with(&rig, &rename), -EBUSY);
	rename.force = true;
	CHECK_EQ("rename", edit_with(&rig, &rename), 0);
	CHECK(find_info(&rig, "c", &info));
	CHECK_EQ("kept", info.n_users, 1);
	CHECK_EQ("forced", edit_with(&rig, &forced), 0);
	CHECK(!tracker_view(rig.tracker, info.id));
	tracker_unuse(rig.tracker, info.id);
	rig_down(&rig);
}

TEST(a_failed_flush_fails_the_checkpoint_and_changes_nothing)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("change", make_change(&rig, 0, GRANULE), 0);
	rig.flush_error = -EIO;
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), -EIO);
	CHECK_EQ("as before", dirty_granules(&rig, "b"), 1);
	CHECK_EQ("changes go on", make_change(&rig, 9 * GRANULE, GRANULE), 0);
	rig.flush_error = 0;
	rig_down(&rig);
}

TEST(a_read_only_export_records_nothing_and_still_shows)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_CHECKPOINT, "c"), 0);
	CHECK_EQ("change", make_change(&rig, 0, GRANULE), 0);
	rig_close(&rig);
	rig.settings.read_only = true;
	make_sure(&rig);
	CHECK_EQ("shows", dirty_granules(&rig, "c"), 1);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), -EROFS);
	rig_down(&rig);
}

TEST(what_others_write_while_the_export_is_read_only_is_a_gap)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	rig_close(&rig);
	rig.settings.read_only = true;
	make_sure(&rig);
	CHECK_EQ("a write", pwrite(rig.fd, "x", 1, 0), 1);
	rig_close(&rig);
	rig.settings.read_only = false;
	make_sure(&rig);
	CHECK_STR("somebody wrote", state_of(&rig, "b"), "gap");
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
	rig_close(&rig);
	rig.settings.read_only = true;
	make_sure(&rig);
	rig_close(&rig);
	rig.settings.read_only = false;
	make_sure(&rig);
	CHECK_STR("nobody wrote", state_of(&rig, "b"), "recording");
	rig_down(&rig);
}

TEST(a_delta_of_a_checkpoint_that_has_missed_something_is_refused)
{
	const char *sources[] = { "c" };
	struct edit delta = { .kind = EDIT_DELTA, .name = "d", .sources = sources, .n_sources = 1 };
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("checkpoint", edit(&rig, EDIT_CHECKPOINT, "c"), 0);
	CHECK_EQ("disable", edit(&rig, EDIT_DISABLE, "c"), 0);
	CHECK_EQ("change", make_change(&rig, 4 * GRANULE, 1), 0);
	CHECK_EQ("delta", edit_with(&rig, &delta), -EINVAL);
	rig_down(&rig);
}

static enum group_decision decision;

static enum group_decision decided(const char *group)
{
	(void) group;
	return decision;
}

/* Prepares "c" of a group, changes a granule, and leaves or dies; the store is open again then. */
static void prepare(struct rig *rig, bool dies)
{
	struct edit checkpoint = {
		.kind = EDIT_CHECKPOINT, .name = "c", .group = "0123456789abcdef0123456789abcdef",
	};
	pid_t child = dies ? fork() : 0;

	decision = GROUP_UNDECIDED;
	if (child == 0) {
		make_sure(rig);
		CHECK_EQ("prepare", edit_with(rig, &checkpoint), 0);
		CHECK_STR("hidden", state_of(rig, "c"), "none");
		CHECK_EQ("remove", edit(rig, EDIT_REMOVE, "c"), -ENOENT);
		CHECK_EQ("the name", edit(rig, EDIT_ADD, "c"), -EEXIST);
		CHECK_EQ("change", make_change(rig, 3 * GRANULE, 1), 0);
		CHECK_EQ("not yet", edit(rig, EDIT_RESOLVE, ""), -EAGAIN);
		CHECK_STR("hidden still", state_of(rig, "c"), "none");
	}
	if (dies && child == 0)
		_exit(0);
	if (dies)
		CHECK(waitpid(child, NULL, 0) == child);
}

TEST(a_checkpoint_of_a_group_is_made_or_given_up_as_was_decided_also_after_a_crash)
{
	for (unsigned i = 0; i < 4; i++) {
		bool dies = i & 1, made = i & 2;
		struct rig rig;

		rig_up(&rig);
		rig.settings.decided = decided;
		prepare(&rig, dies);
		decision = made ? GROUP_COMMITTED : GROUP_ABORTED;
		if (dies)
			make_sure(&rig);
		else
			CHECK_EQ("resolve", edit(&rig, EDIT_RESOLVE, ""), 0);
		CHECK_STR("afterwards", state_of(&rig, "c"), made ? "recording" : "none");
		if (made)
			CHECK(dirty_granules(&rig, "c") >= 1);
		else
			CHECK_EQ("the name is free", edit(&rig, EDIT_ADD, "c"), 0);
		rig_down(&rig);
	}
}

/* Whoever made it keeps what it has decided until each export has seen that. */
TEST(a_checkpoint_of_a_group_whose_decision_cannot_be_read_waits_and_says_so)
{
	struct rig rig;

	rig_up(&rig);
	rig.settings.decided = decided;
	prepare(&rig, false);
	decision = GROUP_UNSEEN;
	CHECK_EQ("unseen", edit(&rig, EDIT_RESOLVE, ""), -EAGAIN);
	CHECK_STR("hidden still", state_of(&rig, "c"), "none");
	decision = GROUP_COMMITTED;
	CHECK_EQ("seen", edit(&rig, EDIT_RESOLVE, ""), 0);
	CHECK_STR("made", state_of(&rig, "c"), "recording");
	CHECK_EQ("nothing is left to see", edit(&rig, EDIT_RESOLVE, ""), 0);
	rig_down(&rig);
}

TEST(armed_regions_that_nobody_records_are_forgotten)
{
	struct tracker_status status;
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("remove", edit(&rig, EDIT_REMOVE, "b"), 0);
	rig_close(&rig);
	arm_for_nobody(&rig);
	make_sure(&rig);
	tracker_status(rig.tracker, &status);
	CHECK_EQ("armed", status.n_armed, 0);
	rig_down(&rig);
}

TEST(another_device_or_a_smaller_one_loses_and_a_larger_one_gains)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	rig_close(&rig);
	rig.settings.size = SIZE + 5 * GRANULE;
	make_sure(&rig);
	CHECK_STR("grown", state_of(&rig, "b"), "recording");
	CHECK_EQ("what is new", dirty_granules(&rig, "b"), 5);
	CHECK_EQ("at its end", make_change(&rig, SIZE + 5 * GRANULE - 1, 1), 0);
	rig_close(&rig);
	rig.settings.size = SIZE;
	make_sure(&rig);
	CHECK_STR("shrunk", state_of(&rig, "b"), "lost");
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
	rig_close(&rig);
	rig.settings.identity = "disk-2";
	make_sure(&rig);
	CHECK_STR("another", state_of(&rig, "b"), "lost");
	CHECK_EQ("everything", dirty_granules(&rig, "b"), N_GRANULES);
	rig_down(&rig);
}

/* The larger store begins with nothing armed, and says still what the old one had. */
TEST(a_device_that_has_grown_after_a_crash_tells_how_much_counts_as_changed)
{
	struct tracker_status status;
	struct rig rig;
	pid_t child;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	rig_close(&rig);
	child = fork();
	if (child == 0) {
		make_sure(&rig);
		_exit(make_change(&rig, 0, GRANULE));
	}
	CHECK(waitpid(child, NULL, 0) == child);
	rig.settings.size = SIZE + 5 * GRANULE;
	make_sure(&rig);
	tracker_status(rig.tracker, &status);
	CHECK_EQ("more than is known", status.over_reported, 2 * GRANULE);
	CHECK_EQ("armed", status.n_armed, 0);
	CHECK_EQ("a region, and what is new", dirty_granules(&rig, "b"), 7);
	rig_down(&rig);
}

TEST(writes_by_others_between_two_runs_make_a_gap)
{
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	rig_close(&rig);
	make_sure(&rig);
	CHECK_STR("nobody wrote", state_of(&rig, "b"), "recording");
	rig_close(&rig);
	CHECK_EQ("a write", pwrite(rig.fd, "x", 1, 0), 1);
	make_sure(&rig);
	CHECK_STR("somebody wrote", state_of(&rig, "b"), "gap");
	rig_down(&rig);
}

TEST(a_missing_or_damaged_store_makes_what_must_exist_dirty_as_a_whole)
{
	const char *names[] = { "b", NULL };
	struct rig rig;
	int fd;

	rig_up(&rig);
	rig.settings.names = names;
	make_sure(&rig);
	CHECK_STR("new", state_of(&rig, "b"), "lost");
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
	rig_close(&rig);
	make_sure(&rig);
	CHECK_STR("known", state_of(&rig, "b"), "recording");
	rig_close(&rig);
	CHECK(unlink(rig.store) == 0);
	make_sure(&rig);
	CHECK_STR("missing", state_of(&rig, "b"), "lost");
	rig_close(&rig);
	fd = open(rig.store, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && write(fd, "rubbish", 7) == 7);
	close(fd);
	make_sure(&rig);
	CHECK_STR("damaged", state_of(&rig, "b"), "lost");
	CHECK_EQ("everything", dirty_granules(&rig, "b"), N_GRANULES);
	rig_down(&rig);
}

TEST(a_hold_stops_changes_until_it_is_released)
{
	struct edit held = { .kind = EDIT_CHECKPOINT, .name = "c", .held = true };
	struct waiter waiter;
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("too early", edit_with(&rig, &held), -ETIMEDOUT);
	CHECK_EQ("hold", edit(&rig, EDIT_HOLD, ""), 0);
	sem_init(&waiter.sem, 0, 0);
	waiter.change = (struct change) { .start = 0, .end = 1, .granted = on_granted };
	CHECK(!tracker_begin(rig.tracker, &waiter.change));
	CHECK_EQ("twice", edit_with(&rig, &(struct edit) { .kind = EDIT_HOLD, .held = true }), -EBUSY);
	CHECK_EQ("checkpoint", edit_with(&rig, &held), 0);
	CHECK(sem_trywait(&waiter.sem) < 0);
	CHECK_EQ("release", edit(&rig, EDIT_RELEASE, ""), 0);
	CHECK(wait_for(&waiter));
	tracker_end(rig.tracker, &waiter.change);
	CHECK_EQ("after it", dirty_granules(&rig, "c"), 1);
	rig_down(&rig);
}

/* Several threads at a time */

struct load {
	struct rig *rig;
	_Atomic bool *stop;
	_Atomic uint8_t *truth;         /* by granule: a change has been let pass */
	unsigned lane, seed;
};

static void *run_load(void *userdata)
{
	struct load *load = userdata;
	unsigned seed = load->seed;

	while (!*load->stop) {
		uint64_t start = (uint64_t) rand_r(&seed) % SIZE;
		uint64_t most = rand_r(&seed) % 50 == 0 ? SIZE / 8 : 3 * GRANULE;
		uint64_t length = 1 + (uint64_t) rand_r(&seed) % most;
		uint64_t end = start + length < SIZE ? start + length : SIZE;
		struct waiter waiter;

		if (!begin(load->rig->tracker, &waiter, start, end, load->lane))
			break;
		for (uint64_t granule = start / GRANULE; granule <= (end - 1) / GRANULE; granule++)
			load->truth[granule] = 1;
		tracker_end(load->rig->tracker, &waiter.change);
		sem_destroy(&waiter.sem);
	}
	return NULL;
}

struct crowd {
	pthread_t threads[N_LANES];
	struct load loads[N_LANES];
	_Atomic bool stop;
};

static void crowd_start(struct crowd *crowd, struct rig *rig, _Atomic uint8_t *truth, unsigned seed)
{
	crowd->stop = false;
	for (unsigned i = 0; i < N_LANES; i++) {
		crowd->loads[i] = (struct load) {
			.rig = rig, .stop = &crowd->stop, .truth = truth, .lane = i,
			.seed = seed * 31 + i,
		};
		CHECK_EQ("thread", pthread_create(&crowd->threads[i], NULL, run_load, &crowd->loads[i]),
		         0);
	}
}

static void crowd_stop(struct crowd *crowd)
{
	crowd->stop = true;
	for (unsigned i = 0; i < N_LANES; i++)
		pthread_join(crowd->threads[i], NULL);
}

static unsigned missing(struct rig *rig, const char *name, const _Atomic uint8_t *truth)
{
	struct view *view = view_of(rig, name);
	unsigned n = 0;

	for (uint64_t granule = 0; view && granule < N_GRANULES; granule++)
		n += truth[granule] && !is_dirty(view, granule);
	if (!view)
		n = N_GRANULES + 1;
	view_unref(view);
	return n;
}

static void edit_beside(struct rig *rig, unsigned round)
{
	char name[16];

	(void) snprintf(name, sizeof name, "c%u", round);
	CHECK_EQ("checkpoint", edit(rig, EDIT_CHECKPOINT, name), 0);
	CHECK_EQ("clear", edit(rig, EDIT_CLEAR, "daily"), 0);
	if (round % 3 == 2) {
		CHECK_EQ("disable", edit(rig, EDIT_DISABLE, "on-off"), 0);
		CHECK_EQ("clear", edit(rig, EDIT_CLEAR, "on-off"), 0);
		CHECK(edit(rig, EDIT_ENABLE, "on-off") == 0);
		CHECK_EQ("clear", edit(rig, EDIT_CLEAR, "on-off"), 0);
		(void) snprintf(name, sizeof name, "c%u", round - 1);
		CHECK_EQ("remove", edit(rig, EDIT_REMOVE, name), 0);
	}
}

TEST(edits_beside_changes_lose_none)
{
	static _Atomic uint8_t truth[N_GRANULES];
	struct crowd crowd;
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("all", edit(&rig, EDIT_ADD, "all"), 0);
	CHECK_EQ("daily", edit(&rig, EDIT_ADD, "daily"), 0);
	CHECK_EQ("on-off", edit(&rig, EDIT_ADD, "on-off"), 0);
	crowd_start(&crowd, &rig, truth, 1);
	for (unsigned round = 0; round < 12; round++)
		edit_beside(&rig, round);
	crowd_stop(&crowd);
	CHECK_EQ("missing in all", missing(&rig, "all", truth), 0);

	/* What begins now shows exactly what is made from now on. */
	memset((void *) truth, 0, sizeof truth);
	CHECK_EQ("last", edit(&rig, EDIT_ADD, "last"), 0);
	crowd_start(&crowd, &rig, truth, 2);
	CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "daily"), 0);
	crowd_stop(&crowd);
	CHECK_EQ("missing in last", missing(&rig, "last", truth), 0);
	rig_close(&rig);
	make_sure(&rig);
	CHECK_EQ("missing after a restart", missing(&rig, "last", truth), 0);
	rig_down(&rig);
}

/* The child's life: changes, now and then an edit, until it is killed. */
static void live(struct rig *rig, _Atomic uint8_t *truth, unsigned round)
{
	struct crowd crowd;

	if (rig_open(rig) < 0)
		_exit(1);
	crowd_start(&crowd, rig, truth, round);
	for (unsigned i = 0;; i++) {
		(void) edit(rig, EDIT_ADD, "x");
		(void) edit(rig, EDIT_REMOVE, "x");
	}
}

static void kill_one(struct rig *rig, _Atomic uint8_t *truth, unsigned round)
{
	struct timespec while_it_runs = { .tv_nsec = 20000000 + (long) (round * 7919 % 60) * 1000000 };
	pid_t child = fork();

	if (child == 0)
		live(rig, truth, round);
	nanosleep(&while_it_runs, NULL);
	(void) kill(child, SIGKILL);
	CHECK(waitpid(child, NULL, 0) == child);
	make_sure(rig);
	CHECK_EQ("missing after a kill", missing(rig, "b", truth), 0);
	rig_close(rig);
}

TEST(a_killed_process_leaves_a_superset)
{
	_Atomic uint8_t *truth = mmap(NULL, N_GRANULES, PROT_READ | PROT_WRITE,
	                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct rig rig;

	rig_up(&rig);
	make_sure(&rig);
	CHECK_EQ("add", edit(&rig, EDIT_ADD, "b"), 0);
	rig_close(&rig);
	for (unsigned round = 0; round < 20; round++) {
		if (round % 4 == 0) {
			memset((void *) truth, 0, N_GRANULES);
			make_sure(&rig);
			CHECK_EQ("clear", edit(&rig, EDIT_CLEAR, "b"), 0);
			rig_close(&rig);
		}
		kill_one(&rig, truth, round);
	}
	munmap((void *) truth, N_GRANULES);
	rig_down(&rig);
}
