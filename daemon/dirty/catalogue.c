/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The catalogue in memory: states in words, looking up, areas that nobody uses any more.
 * catalogue-code.c has it as bytes.
 */
#include "dirty/catalogue.h"

#include <string.h>

static const char *const words[] = {
	[BITMAP_RECORDING] = "recording",
	[BITMAP_DISABLED] = "disabled",
	[BITMAP_FROZEN] = "frozen",
	[BITMAP_GAP] = "gap",
	[BITMAP_LOST] = "lost",
};

const char *bitmap_state_word(enum bitmap_state state)
{
	return words[state];
}

struct bitmap_entry *catalogue_find(struct catalogue *catalogue, const char *name)
{
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++)
		if (strcmp(catalogue->bitmaps[i].name, name) == 0)
			return &catalogue->bitmaps[i];
	return NULL;
}

uint32_t catalogue_free_area(const struct catalogue *catalogue)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (catalogue->deltas[area].id == 0)
			return area;
	return NO_AREA;
}

static void add_areas(struct area_set *to, const struct area_set *from)
{
	for (unsigned i = 0; i < AREAS_MAX / 64; i++)
		to->bits[i] |= from->bits[i];
}

struct area_set catalogue_sweep(struct catalogue *catalogue)
{
	struct area_set used = { 0 }, freed = { 0 };

	if (catalogue->recording != NO_AREA)
		area_put(&used, catalogue->recording);
	for (unsigned i = 0; i < catalogue->n_bitmaps; i++) {
		add_areas(&used, &catalogue->bitmaps[i].shows);
		add_areas(&used, &catalogue->bitmaps[i].missed);
	}
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		if (catalogue->deltas[area].id == 0 || area_in(&used, area))
			continue;
		catalogue->deltas[area].id = 0;
		area_put(&freed, area);
	}
	return freed;
}
