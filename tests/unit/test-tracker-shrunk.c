/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that shrinks while its store takes no writes: that bitmaps are lost is not forgotten.
 *
 * The tracker has no thread here: the test does its rounds.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/attr.h"
#include "check.h"
#include "dirty/tracker-state.h"
#include "scratch.h"

#define SIZE (UINT64_C(64) << 20)

struct rig {
	struct scratch scratch;
	struct medium medium;
	struct file_medium file;
	bool fails;
	struct tracker *tracker;
	struct tracker_settings settings;
};

static struct medium *below(struct medium *medium)
{
	return &container_of(medium, struct rig, medium)->file.medium;
}

static int rig_read(struct medium *medium, uint64_t at, void *data, size_t length)
{
	return below(medium)->ops->read(below(medium), at, data, length);
}

static int rig_write(struct medium *medium, uint64_t at, const void *data, size_t length)
{
	return container_of(medium, struct rig, medium)->fails ? -EIO :
	       below(medium)->ops->write(below(medium), at, data, length);
}

static int rig_sync(struct medium *medium)
{
	return below(medium)->ops->sync(below(medium));
}

static int rig_allocate(struct medium *medium, uint64_t at, uint64_t length)
{
	return below(medium)->ops->allocate(below(medium), at, length);
}

static int rig_clear(struct medium *medium, uint64_t at, uint64_t length)
{
	return below(medium)->ops->clear(below(medium), at, length);
}

static const struct medium_ops rig_ops = {
	.read = rig_read, .write = rig_write, .sync = rig_sync,
	.allocate = rig_allocate, .clear = rig_clear,
};

static int flush(void *userdata)
{
	(void) userdata;
	return 0;
}

static void changed(void *userdata)
{
	(void) userdata;
}

static void open_again(struct rig *rig)
{
	struct failure why = { 0 };

	CHECK_EQ(why.text, tracker_open(&rig->tracker, &rig->settings, &why), 0);
	if (!rig->tracker)
		exit(1);
}

static void done(struct edit *edit)
{
	(void) edit;
}

static void do_rounds(struct rig *rig)
{
	pthread_mutex_lock(&rig->tracker->lock);
	while (recorder_round(rig->tracker))
		;
	pthread_mutex_unlock(&rig->tracker->lock);
}

static int edit(struct rig *rig, enum edit_kind kind, const char *name)
{
	const char *const sources[] = { "old" };
	struct edit what = { .kind = kind, .done = done, .sources = sources, .n_sources = 1 };

	(void) snprintf(what.name, sizeof what.name, "%s", name);
	tracker_edit(rig->tracker, &what);
	do_rounds(rig);
	return what.result;
}

/* With a bitmap "b" and a frozen one. */
static void rig_up(struct rig *rig, enum tracker_on_error on_error)
{
	const struct store_geometry geometry = {
		.granule_shift = 16, .region_shift = 17, .arm_limit = 64, .size = SIZE,
	};
	struct failure why = { 0 };
	int fd;

	*rig = (struct rig) { .scratch = scratch_start(), .medium = { .ops = &rig_ops } };
	fd = open(scratch_path(&rig->scratch, "store"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	file_medium_init(&rig->file, fd);
	CHECK_EQ("format", store_format(&rig->medium, &geometry, "disk-1", &why), 0);
	rig->settings = (struct tracker_settings) {
		.label = "web1", .path = "a store", .device = "a disk", .device_fd = fd,
		.identity = "disk-1", .size = SIZE, .granule_shift = 16, .region_shift = 17,
		.arm_limit = 64, .cold_seconds = 1, .n_lanes = 1, .on_error = on_error,
		.flush = flush, .changed = changed, .userdata = rig, .medium = &rig->medium,
	};
	open_again(rig);
	CHECK_EQ("add", edit(rig, EDIT_ADD, "b"), 0);
	CHECK_EQ("checkpoint", edit(rig, EDIT_CHECKPOINT, "old"), 0);
	CHECK_EQ("delta", edit(rig, EDIT_DELTA, "frozen"), 0);
}

static void rig_down(struct rig *rig)
{
	tracker_close(rig->tracker);
	file_medium_close(&rig->file);
	scratch_end(&rig->scratch);
}

static void shrink(struct rig *rig)
{
	tracker_device_shrank(rig->tracker);
	do_rounds(rig);
}

static void check_lost(const char *where, struct rig *rig)
{
	static struct bitmap_info infos[BITMAPS_MAX];

	CHECK_EQ(where, tracker_list(rig->tracker, infos), 3);
	for (unsigned i = 0; i < 3; i++)
		CHECK_STR(where, bitmap_state_word(infos[i].state), "lost");
}

/* As it would be found if the process died now. */
static void check_medium(struct rig *rig)
{
	static struct store store;
	struct store_recovery found;
	struct failure why = { 0 };

	CHECK_EQ("open", store_open(&store, &rig->medium, &found, &why), 0);
	for (unsigned i = 0; i < store.catalogue.n_bitmaps; i++)
		CHECK_STR(store.catalogue.bitmaps[i].name,
		          bitmap_state_word(store.catalogue.bitmaps[i].state), "lost");
	CHECK_EQ("bitmaps", store.catalogue.n_bitmaps, 3);
	free(found.regions);
	store_close(&store);
}

TEST(a_loss_that_could_not_be_written_is_when_the_store_takes_writes_again)
{
	static const enum tracker_on_error kinds[] = { TRACKER_STOP, TRACKER_LOST };
	struct rig rig;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		rig_up(&rig, kinds[i]);
		rig.fails = true;
		shrink(&rig);
		check_lost("at once", &rig);
		CHECK(rig.tracker->refuse != 0);
		rig.fails = false;
		recorder_try_again(rig.tracker);
		CHECK_EQ("refused", rig.tracker->refuse, 0);
		check_medium(&rig);
		rig_down(&rig);
	}
}

TEST(a_device_that_shrinks_after_its_store_has_failed_loses_as_well)
{
	struct rig rig;

	rig_up(&rig, TRACKER_STOP);
	rig.fails = true;
	CHECK_EQ("an edit", edit(&rig, EDIT_REMOVE, "b"), -EIO);
	shrink(&rig);
	rig.fails = false;
	recorder_try_again(rig.tracker);
	check_medium(&rig);
	check_lost("afterwards", &rig);
	rig_down(&rig);
}

TEST(a_loss_is_written_at_the_end_if_it_was_not_before)
{
	struct rig rig;

	rig_up(&rig, TRACKER_STOP);
	rig.fails = true;
	shrink(&rig);
	rig.fails = false;
	tracker_close(rig.tracker);
	check_medium(&rig);
	open_again(&rig);
	check_lost("the next time", &rig);
	rig_down(&rig);
}
