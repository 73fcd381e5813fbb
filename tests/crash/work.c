/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a recorder does to a store, in the order that it must, and at random otherwise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "world.h"

#define N_BITMAPS 7u                    /* at most, here */
#define N_DELTAS 14u

static uint64_t below(struct world *world, uint64_t end)
{
	return disk_random(&world->disk, end);
}

static struct delta *recording(const struct world *world)
{
	uint32_t area = world->now.catalogue.recording;

	return area == NO_AREA ? NULL : world->store.deltas[area];
}

static uint32_t list_armed(const struct world *world, uint32_t *ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < world->n_regions; i++)
		if (world->armed[i])
			ret[n++] = i;
	return n;
}

/* Writing back */

/* All pages that are ahead, or some; they are not any more. */
static uint32_t take_pages(struct world *world, bool all, uint32_t *ret)
{
	struct delta *delta = recording(world);
	uint32_t n = 0;

	for (uint32_t page = 0; page < delta->n_pages; page++)
		if ((all || below(world, 2)) && delta_take_ahead(delta, page))
			ret[n++] = page;
	return n;
}

/* Writes, as far as the regions are armed: a recorder lets no others through. */
static void set_some(struct world *world, unsigned n)
{
	AUTO_FREE uint32_t *regions = calloc(world->n_regions, sizeof *regions);
	struct delta *delta = recording(world);
	const struct catalogue *catalogue = &world->now.catalogue;
	uint32_t n_armed = list_armed(world, regions);

	for (unsigned k = 0; k < n && n_armed > 0; k++) {
		uint64_t region = regions[below(world, n_armed)];
		uint64_t first = region * world->granules_per_region +
		                 below(world, world->granules_per_region);
		uint64_t end = first + 1 + below(world, 3 * world->granules_per_region);
		uint64_t g = first;

		for (; g < end && g < world->store.n_granules &&
		       world->armed[g / world->granules_per_region]; g++)
			for (unsigned i = 0; i < catalogue->n_bitmaps; i++)
				if (catalogue->bitmaps[i].follows)
					world->now.truth[i][g / 64] |= UINT64_C(1) << g % 64;
		if (g > first)
			delta_set(delta, first, g);
	}
}

static int write_back(struct world *world, bool all)
{
	AUTO_FREE uint32_t *regions = calloc(world->n_regions, sizeof *regions);
	uint32_t pages[STORE_PAGES_AT_ONCE] = { 0 };
	uint32_t n_regions = list_armed(world, regions);
	uint32_t n = take_pages(world, all, pages);
	struct failure why = { 0 };
	int r = world_record(world, regions, n_regions, pages, n);

	if (!all)
		set_some(world, 3);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		r = store_write_pages(&world->store, recording(world), &pages[i], 1, &why);
		world->figures->n_pages++;
		if (!all && r == 0)
			set_some(world, 1);
	}
	world->disk.fail_sync |= n > 0 && below(world, 8) == 0;
	if (r == 0)
		r = store_sync(&world->store, &why);
	for (uint32_t i = 0; i < n && r < 0; i++)
		delta_mark_ahead(recording(world), pages[i]);
	return r;
}

/* Whether all that was written to the region is on the medium. */
static bool is_written_back(const struct world *world, uint32_t region)
{
	uint64_t first = (uint64_t) region * world->granules_per_region;
	uint64_t last = first + world->granules_per_region - 1;
	const struct delta *delta = recording(world);

	if (last >= world->store.n_granules)
		last = world->store.n_granules - 1;
	for (uint64_t page = first / DELTA_PAGE_GRANULES; page <= last / DELTA_PAGE_GRANULES; page++)
		if (delta->ahead[page])
			return false;
	return true;
}

static int disarm(struct world *world, unsigned one_in)
{
	AUTO_FREE uint32_t *regions = calloc(world->n_regions, sizeof *regions);
	uint32_t n = list_armed(world, regions), n_kept = 0;

	for (uint32_t i = 0; i < n; i++)
		if (!is_written_back(world, regions[i]) || below(world, one_in) != 0)
			regions[n_kept++] = regions[i];
	return world_record(world, regions, n_kept, NULL, 0);
}

static int step_write_back(struct world *world)
{
	int r;

	world->step = "write-back";
	if (!recording(world))
		return 0;
	r = write_back(world, below(world, 3) == 0);
	return r == 0 && below(world, 2) ? disarm(world, 1 + (unsigned) below(world, 3)) : r;
}

/* Writes */

/* Arms some regions, together with what is armed already. */
static int arm(struct world *world)
{
	AUTO_FREE bool *wanted = calloc(world->n_regions, sizeof *wanted);
	AUTO_FREE uint32_t *regions = calloc(world->n_regions, sizeof *regions);
	unsigned left = 1 + (unsigned) below(world, 8);
	uint32_t n;

	n = list_armed(world, regions);
	for (uint32_t i = 0; i < n; i++)
		wanted[regions[i]] = true;
	for (; left > 0 && n < world->store.geometry.arm_limit; left--) {
		uint32_t region = (uint32_t) below(world, world->n_regions);

		n += !wanted[region];
		wanted[region] = true;
	}
	n = 0;
	for (uint32_t i = 0; i < world->n_regions; i++)
		if (wanted[i])
			regions[n++] = i;
	return world_record(world, regions, n, NULL, 0);
}

static int step_write(struct world *world)
{
	int r = 0;

	world->step = "a write";
	if (!recording(world))
		return 0;
	if (below(world, 3) != 0)
		r = arm(world);
	if (r == 0)
		set_some(world, 1 + (unsigned) below(world, 40));
	return r;
}

/* The catalogue */

static int new_delta(struct world *world, uint32_t *ret_area)
{
	struct catalogue *next = &world->next.catalogue;
	uint32_t area = catalogue_free_area(next);
	struct failure why = { 0 };
	int r = store_prepare_area(&world->store, area, &why);

	if (r < 0)
		return r;
	delta_unref(world->fresh);
	world->fresh = delta_new(next->next_id, area, world->store.n_granules);
	if (!world->fresh)
		complain(world, "out of memory");
	next->deltas[area].id = next->next_id++;
	*ret_area = area;
	return 0;
}

/* `next` becomes what is, with another delta to record to. */
static int cut(struct world *world)
{
	struct catalogue *next = &world->next.catalogue;
	uint32_t old = world->now.catalogue.recording;
	int r = recording(world) ? write_back(world, true) : 0;

	version_copy(world, &world->next, &world->now);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < next->n_bitmaps && old != NO_AREA; i++)
		if (next->bitmaps[i].follows)
			area_put(&next->bitmaps[i].shows, old);
	return new_delta(world, &next->recording);
}

static int commit(struct world *world)
{
	struct area_set freed = catalogue_sweep(&world->next.catalogue);
	int r = world_commit(world);

	if (r == 0)
		store_clear_areas(&world->store, &freed);
	return r;
}

static int step_add(struct world *world)
{
	struct catalogue *next = &world->next.catalogue;
	struct bitmap_entry *bitmap;
	int r;

	world->step = "add";
	if (world->now.catalogue.n_bitmaps == N_BITMAPS)
		return 0;
	r = cut(world);
	if (r < 0)
		return r;
	world->next.truth[next->n_bitmaps] = new_words(world);
	bitmap = &next->bitmaps[next->n_bitmaps++];
	*bitmap = (struct bitmap_entry) { .follows = true };
	(void) snprintf(bitmap->name, sizeof bitmap->name, "bitmap-%llu",
	                (unsigned long long) next->next_id);
	return commit(world);
}

static int step_clear(struct world *world)
{
	unsigned i;
	int r;

	world->step = "clear";
	if (world->now.catalogue.n_bitmaps == 0)
		return 0;
	r = cut(world);
	if (r < 0)
		return r;
	i = (unsigned) below(world, world->now.catalogue.n_bitmaps);
	world->next.catalogue.bitmaps[i].shows = (struct area_set) { 0 };
	memset(world->next.truth[i], 0, world->n_words * sizeof(uint64_t));
	return commit(world);
}

/* Disables or enables one. */
static int step_toggle(struct world *world)
{
	struct bitmap_entry *bitmap;
	int r;

	world->step = "enable or disable";
	if (world->now.catalogue.n_bitmaps == 0)
		return 0;
	r = cut(world);
	if (r < 0)
		return r;
	bitmap = &world->next.catalogue.bitmaps[below(world, world->now.catalogue.n_bitmaps)];
	bitmap->follows = !bitmap->follows;
	bitmap->state = bitmap->follows ? BITMAP_RECORDING : BITMAP_DISABLED;
	return commit(world);
}

static int step_remove(struct world *world)
{
	struct catalogue *next = &world->next.catalogue;
	unsigned last, i;

	world->step = "remove";
	if (world->now.catalogue.n_bitmaps < 2)
		return 0;
	version_copy(world, &world->next, &world->now);
	last = next->n_bitmaps - 1;
	i = (unsigned) below(world, next->n_bitmaps);
	free(world->next.truth[i]);
	world->next.truth[i] = i == last ? NULL : world->next.truth[last];
	world->next.truth[last] = NULL;
	next->bitmaps[i] = next->bitmaps[last];
	next->n_bitmaps--;
	return commit(world);
}

static int step_merge(struct world *world)
{
	struct catalogue *next = &world->next.catalogue;
	unsigned from, to;
	int r;

	world->step = "merge";
	if (world->now.catalogue.n_bitmaps < 2)
		return 0;
	r = cut(world);
	if (r < 0)
		return r;
	from = (unsigned) below(world, next->n_bitmaps);
	to = (unsigned) below(world, next->n_bitmaps);
	for (unsigned i = 0; i < AREAS_MAX / 64; i++)
		next->bitmaps[to].shows.bits[i] |= next->bitmaps[from].shows.bits[i];
	for (uint32_t w = 0; w < world->n_words; w++)
		world->next.truth[to][w] |= world->next.truth[from][w];
	return commit(world);
}

static bool are_alike(const struct catalogue *catalogue, uint32_t a, uint32_t b)
{
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++)
		if (area_in(&catalogue->bitmaps[i].shows, a) != area_in(&catalogue->bitmaps[i].shows, b))
			return false;
	return true;
}

static bool find_alike(const struct catalogue *catalogue, uint32_t *ret_a, uint32_t *ret_b)
{
	for (uint32_t a = 0; a < AREAS_MAX; a++)
		for (uint32_t b = a + 1; b < AREAS_MAX; b++) {
			if (!catalogue->deltas[a].id || !catalogue->deltas[b].id ||
			    a == catalogue->recording || b == catalogue->recording ||
			    !are_alike(catalogue, a, b))
				continue;
			*ret_a = a;
			*ret_b = b;
			return true;
		}
	return false;
}

/* Two frozen deltas become one in another area. */
static int step_join(struct world *world)
{
	struct catalogue *next = &world->next.catalogue;
	struct failure why = { 0 };
	uint32_t a, b, area;
	int r;

	world->step = "joining of deltas";
	version_copy(world, &world->next, &world->now);
	if (!find_alike(next, &a, &b))
		return 0;
	r = new_delta(world, &area);
	if (r < 0)
		return r;
	delta_add(world->fresh, world->store.deltas[a]);
	delta_add(world->fresh, world->store.deltas[b]);
	for (uint32_t page = 0; page < world->fresh->n_pages && r == 0; page++)
		if (delta_take_ahead(world->fresh, page))
			r = store_write_pages(&world->store, world->fresh, &page, 1, &why);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < next->n_bitmaps; i++) {
		if (!area_in(&next->bitmaps[i].shows, a))
			continue;
		area_put(&next->bitmaps[i].shows, area);
		area_drop(&next->bitmaps[i].shows, a);
		area_drop(&next->bitmaps[i].shows, b);
	}
	return commit(world);
}

/* In and out of use */

static int step_detach(struct world *world)
{
	int r = 0;

	world->step = "detach";
	if (recording(world))
		r = write_back(world, true);
	if (r == 0)
		r = world_record(world, NULL, 0, NULL, 0);
	if (r < 0)
		return r;
	version_copy(world, &world->next, &world->now);
	world->next.catalogue.attached = false;
	return commit(world);
}

static int attach(struct world *world)
{
	world->step = "attach";
	version_copy(world, &world->next, &world->now);
	world->next.catalogue.attached = true;
	return commit(world);
}

static unsigned n_deltas(const struct world *world)
{
	unsigned n = 0;

	for (uint32_t area = 0; area < AREAS_MAX; area++)
		n += world->now.catalogue.deltas[area].id != 0;
	return n;
}

static int (*const steps[])(struct world *) = {
	step_write, step_write, step_write, step_write, step_write, step_write, step_write,
	step_write_back, step_write_back, step_write_back, step_write_back, step_write_back,
	step_write_back, step_write_back, step_write_back, step_write_back, step_write_back,
	step_add, step_clear, step_toggle, step_merge, step_join, step_join, step_detach,
};

/* What makes deltas fewer. */
static int (*const thinning_steps[])(struct world *) = { step_remove, step_join, step_clear };

void work_step(struct world *world)
{
	int r;

	if (!world->now.catalogue.attached)
		r = attach(world);
	else if (n_deltas(world) >= N_DELTAS)
		r = thinning_steps[below(world, ARRAY_LEN(thinning_steps))](world);
	else
		r = steps[below(world, ARRAY_LEN(steps))](world);
	if (r < 0 && !world->disk.dead && !world->disk.lies)
		complain(world, "it failed with %d, but the disk did not", r);
}
