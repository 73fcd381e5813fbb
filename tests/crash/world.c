/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/store-geometry.h"

void complain(const struct world *world, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "seed %llu, moment %llu, image %llu, during %s: ",
	        (unsigned long long) world->seed, (unsigned long long) world->figures->n_points,
	        (unsigned long long) world->figures->n_images, world->step);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

uint64_t *new_words(const struct world *world)
{
	uint64_t *words = calloc(world->n_words, sizeof *words);

	if (!words)
		complain(world, "out of memory");
	return words;
}

void version_clear(struct version *version)
{
	for (unsigned i = 0; i < BITMAPS_MAX; i++) {
		free(version->truth[i]);
		version->truth[i] = NULL;
	}
}

void version_copy(const struct world *world, struct version *to, const struct version *from)
{
	version_clear(to);
	to->catalogue = from->catalogue;
	for (unsigned i = 0; i < from->catalogue.n_bitmaps; i++) {
		to->truth[i] = new_words(world);
		memcpy(to->truth[i], from->truth[i], world->n_words * sizeof(uint64_t));
	}
}

/* Comparing */

static const struct delta *live_delta(const struct world *world, uint32_t area, uint64_t id)
{
	const struct delta *delta = world->store.deltas[area];

	if (delta && delta->id == id)
		return delta;
	if (world->fresh && world->fresh->id == id)
		return world->fresh;
	complain(world, "the simulation has lost delta %llu", (unsigned long long) id);
}

static void add_delta(uint64_t *words, const struct delta *delta)
{
	uint64_t page[DELTA_PAGE_WORDS];

	for (uint32_t i = 0; i < delta->n_pages; i++) {
		if (!delta_copy_page(delta, i, page))
			continue;
		for (unsigned w = 0; w < DELTA_PAGE_WORDS; w++)
			words[i * DELTA_PAGE_WORDS + w] |= page[w];
	}
}

/* What bitmap `i` shows, from `store`, or from the deltas that live in the world. */
static void show(const struct world *world, const struct catalogue *catalogue, unsigned i,
                 const struct store *store, uint64_t *ret)
{
	const struct bitmap_entry *bitmap = &catalogue->bitmaps[i];

	memset(ret, 0, world->n_words * sizeof *ret);
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		uint64_t id = catalogue->deltas[area].id;

		if (!id || !(area_in(&bitmap->shows, area) ||
		             (bitmap->follows && area == catalogue->recording)))
			continue;
		add_delta(ret, store ? store->deltas[area] : live_delta(world, area, id));
	}
}

static void compare_bitmap(struct world *world, const struct version *version, unsigned i)
{
	const struct bitmap_entry *found = &world->found.catalogue.bitmaps[i];
	const struct bitmap_entry *bitmap = &version->catalogue.bitmaps[i];
	bool armed = bitmap->follows && version->catalogue.attached;

	if (strcmp(found->name, bitmap->name) != 0 || found->follows != bitmap->follows ||
	    memcmp(&found->shows, &bitmap->shows, sizeof bitmap->shows) != 0)
		complain(world, "bitmap %s is not what was committed", bitmap->name);
	show(world, &world->found.catalogue, i, &world->found, world->shown);
	show(world, &version->catalogue, i, NULL, world->expected);
	for (uint32_t w = 0; w < world->n_words; w++) {
		uint64_t lost = version->truth[i][w] & ~world->shown[w];
		uint64_t over = world->shown[w] & ~world->expected[w] &
		                ~(armed ? world->maybe_armed[w] : 0);

		if (lost)
			complain(world, "bitmap %s has lost granule %u", bitmap->name,
			         w * 64 + (unsigned) __builtin_ctzll(lost));
		if (over)
			complain(world, "bitmap %s has granule %u, which nobody wrote or armed",
			         bitmap->name, w * 64 + (unsigned) __builtin_ctzll(over));
	}
}

/* Which of the versions that may be there is. */
static const struct version *version_of(const struct world *world, const struct store *store)
{
	uint64_t sequence = store->catalogue.sequence;

	if (world->committing && sequence == world->now.catalogue.sequence + 1)
		return &world->next;
	if (sequence != world->now.catalogue.sequence || (world->committing && world->old_is_gone))
		complain(world, "the catalogue is number %llu", (unsigned long long) sequence);
	return &world->now;
}

static const struct version *open_and_compare(struct world *world, struct medium *medium,
                                              struct store_recovery *recovery)
{
	const struct version *version;
	struct failure why = { 0 };

	if (store_open(&world->found, medium, recovery, &why) < 0)
		complain(world, "%s", why.text);
	version = version_of(world, &world->found);
	if (recovery->n_torn_pages || recovery->record_missing)
		complain(world, "%u pages are torn%s", recovery->n_torn_pages,
		         recovery->record_missing ? ", and the record is missing" : "");
	if (world->found.catalogue.n_bitmaps != version->catalogue.n_bitmaps ||
	    recovery->unclean != version->catalogue.attached)
		complain(world, "the catalogue is not what was committed");
	world->figures->n_unclean += recovery->unclean;
	world->figures->n_mended += world->found.mending.n_pages;
	for (unsigned i = 0; i < version->catalogue.n_bitmaps; i++)
		compare_bitmap(world, version, i);
	return version;
}

static const struct version *check_image(struct world *world, enum survivors survivors)
{
	struct store_recovery recovery;
	const struct version *version;

	image_take(&world->image, &world->disk, survivors);
	world->figures->n_images++;
	version = open_and_compare(world, &world->image.medium, &recovery);
	store_close(&world->found);
	free(recovery.regions);
	return version;
}

static void after_write(struct disk *disk)
{
	struct world *world = disk->userdata;

	if (world->quiet)
		return;
	world->figures->n_points++;
	(void) check_image(world, SURVIVES_NOTHING);
	if (disk->n_pending) {
		(void) check_image(world, SURVIVES_ALL);
		for (unsigned i = 0; i < world->n_subsets; i++)
			(void) check_image(world, SURVIVES_SOME);
	}
	if (world->may_die && disk_random(disk, 80) == 0)
		disk->dead = true;
}

static void after_sync(struct disk *disk)
{
	struct world *world = disk->userdata;

	if (world->quiet)
		return;
	world->figures->n_points++;
	if (check_image(world, SURVIVES_NOTHING) == &world->next)
		world->old_is_gone = true;
	if (world->may_die && disk_random(disk, 80) == 0)
		disk->dead = true;
}

/* Life and death */

static void add_maybe_armed(struct world *world, const uint32_t *regions, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t first = (uint64_t) regions[i] * world->granules_per_region;

		for (uint64_t g = first; g < first + world->granules_per_region; g++)
			if (g < world->store.n_granules)
				world->maybe_armed[g / 64] |= UINT64_C(1) << g % 64;
	}
}

static void set_armed(struct world *world, const uint32_t *regions, uint32_t n)
{
	memset(world->armed, 0, world->n_regions * sizeof *world->armed);
	memset(world->maybe_armed, 0, world->n_words * sizeof *world->maybe_armed);
	for (uint32_t i = 0; i < n; i++)
		world->armed[regions[i]] = true;
	add_maybe_armed(world, regions, n);
}

/* A record has failed: what it armed may not be armed, and what it disarmed may not be any more. */
static void keep_armed(struct world *world, const uint32_t *regions, uint32_t n)
{
	uint32_t i = 0;

	for (uint32_t region = 0; region < world->n_regions; region++) {
		while (i < n && regions[i] < region)
			i++;
		world->armed[region] &= i < n && regions[i] == region;
	}
}

/* After a lie the platter may have what was before, which nobody can compare with any more. */
static void affirm(struct world *world)
{
	struct failure why = { 0 };

	world->step = "affirmation";
	world->quiet = world->disk.lies;
	if (store_affirm(&world->store, &why) < 0 && !world->disk.dead)
		complain(world, "%s", why.text);
	world->disk.lies = world->quiet = false;
}

static void world_open(struct world *world)
{
	struct store_recovery recovery;

	world->quiet = true;
	/* While what was in memory is still there to compare with. */
	if (open_and_compare(world, &world->disk.medium, &recovery) == &world->next) {
		version_copy(world, &world->now, &world->next);
		world->now.catalogue.sequence++;
	}
	world->quiet = false;
	world->committing = false;
	store_close(&world->store);
	delta_unref(world->fresh);
	world->fresh = NULL;
	world->store = world->found;
	set_armed(world, recovery.regions, recovery.n_armed);
	free(recovery.regions);
	affirm(world);
}

void world_cut_power(struct world *world)
{
	world->step = "a power cut";
	world->figures->n_power_cuts++;
	image_take(&world->image, &world->disk, (enum survivors) disk_random(&world->disk, 3));
	disk_become(&world->disk, &world->image);
	world_open(world);
}

void world_kill(struct world *world)
{
	world->disk.dead = world->disk.fail_sync = false;
	world->step = "a kill";
	world->figures->n_kills++;
	world_open(world);
}

void world_init(struct world *world, const struct store_geometry *geometry, uint64_t seed,
                struct figures *figures)
{
	struct failure why = { 0 };
	uint64_t areas = UINT64_C(2) * STORE_BLOCK * AREAS_MAX;

	*world = (struct world) { .figures = figures, .seed = seed, .step = "formatting",
	                          .quiet = true };
	world->store.geometry = *geometry;
	geometry_lay_out(&world->store);
	world->n_words = world->store.n_pages * DELTA_PAGE_WORDS;
	world->n_regions = world->store.n_regions;
	world->granules_per_region = 1u << (geometry->region_shift - geometry->granule_shift);
	disk_init(&world->disk, world->store.areas_at + world->store.n_pages * areas, seed);
	world->disk.userdata = world;
	world->disk.after_write = after_write;
	world->disk.after_sync = after_sync;
	world->maybe_armed = new_words(world);
	world->shown = new_words(world);
	world->expected = new_words(world);
	world->armed = calloc(world->n_regions, sizeof *world->armed);
	if (!world->armed)
		complain(world, "out of memory");
	if (store_format(&world->disk.medium, geometry, "a simulated disk", &why) < 0)
		complain(world, "%s", why.text);
	world->now.catalogue.sequence = 1;
	world->now.catalogue.next_id = 1;
	world->now.catalogue.recording = NO_AREA;
	world_open(world);
}

void world_deinit(struct world *world)
{
	world->figures->n_failed_syncs += world->disk.n_failed;
	store_close(&world->store);
	delta_unref(world->fresh);
	version_clear(&world->now);
	version_clear(&world->next);
	image_deinit(&world->image);
	disk_deinit(&world->disk);
	free(world->armed);
	free(world->maybe_armed);
	free(world->shown);
	free(world->expected);
}

/* Doing */

int world_record(struct world *world, const uint32_t *regions, uint32_t n_regions,
                 const uint32_t *pages, uint32_t n_pages)
{
	const struct store_record record = {
		.regions = regions, .n_regions = n_regions, .pages = pages, .n_pages = n_pages,
	};
	struct failure why = { 0 };
	int r;

	add_maybe_armed(world, regions, n_regions);
	world->figures->n_records++;
	r = store_write_record(&world->store, &record, &why);
	if (r == 0)
		set_armed(world, regions, n_regions);
	else
		keep_armed(world, regions, n_regions);
	return r;
}

int world_commit(struct world *world)
{
	struct failure why = { 0 };
	int r;

	world->figures->n_commits++;
	world->next.catalogue.sequence = world->now.catalogue.sequence;
	world->committing = true;
	world->old_is_gone = false;
	r = store_commit(&world->store, &world->next.catalogue, &why);
	if (world->store.unsure && !world->disk.dead) {
		/* Nothing is known until a commit succeeds. */
		why = (struct failure) { 0 };
		r = store_commit(&world->store, &world->next.catalogue, &why);
	}
	if (r < 0 && !world->store.unsure)
		world->committing = false;
	if (r == -EINVAL)
		complain(world, "%s", why.text);
	if (r < 0)
		return r;
	world->committing = false;
	version_copy(world, &world->now, &world->next);
	world->now.catalogue.sequence++;
	/* It may also be left from something else, which has failed. */
	if (world->fresh && world->next.catalogue.deltas[world->fresh->area].id == world->fresh->id)
		world->store.deltas[world->fresh->area] = world->fresh;
	else
		delta_unref(world->fresh);
	world->fresh = NULL;
	return 0;
}
