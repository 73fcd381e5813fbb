/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *got)
{
	if (!got) {
		printf("out of memory\n");
		exit(2);
	}
	return got;
}

void model_init(struct model *model, uint32_t n_words)
{
	*model = (struct model) { .n_words = n_words };
}

static void clear_one(struct model_bitmap *bitmap)
{
	free(bitmap->truth);
	for (unsigned j = 0; j < MODEL_BITMAPS; j++)
		free(bitmap->until[j]);
	*bitmap = (struct model_bitmap) { .frozen = false };
}

void model_clear(struct model *model)
{
	for (unsigned i = 0; i < model->n; i++)
		clear_one(&model->of[i]);
	model->n = 0;
}

uint64_t *words_copy(const struct model *model, const uint64_t *words)
{
	uint64_t *copy;

	if (!words)
		return NULL;
	copy = must(malloc(model->n_words * sizeof *copy));
	memcpy(copy, words, model->n_words * sizeof *copy);
	return copy;
}

void model_copy(struct model *to, const struct model *from)
{
	model_clear(to);
	*to = *from;
	for (unsigned i = 0; i < to->n; i++) {
		to->of[i].truth = words_copy(to, from->of[i].truth);
		for (unsigned j = 0; j < MODEL_BITMAPS; j++)
			to->of[i].until[j] = words_copy(to, from->of[i].until[j]);
	}
}

struct model_bitmap *model_add(struct model *model, const char *name)
{
	struct model_bitmap *bitmap = &model->of[model->n++];

	*bitmap = (struct model_bitmap) { .fresh = true };
	(void) snprintf(bitmap->name, sizeof bitmap->name, "%s", name);
	bitmap->truth = must(calloc(model->n_words, sizeof(uint64_t)));
	return bitmap;
}

void model_remove(struct model *model, unsigned i)
{
	clear_one(&model->of[i]);
	model->n--;
	for (unsigned k = i; k < model->n; k++)
		model->of[k] = model->of[k + 1];
	model->of[model->n] = (struct model_bitmap) { .frozen = false };
	for (unsigned k = 0; k < model->n; k++) {
		free(model->of[k].until[i]);
		for (unsigned j = i; j + 1 < MODEL_BITMAPS; j++)
			model->of[k].until[j] = model->of[k].until[j + 1];
		model->of[k].until[MODEL_BITMAPS - 1] = NULL;
	}
}

void model_mark(struct model *model, uint64_t first, uint64_t end, bool begun)
{
	for (unsigned i = 0; i < model->n; i++) {
		const struct model_bitmap *bitmap = &model->of[i];

		if (bitmap->frozen || (bitmap->fresh && !begun))
			continue;
		for (uint64_t g = first; g < end; g++)
			bitmap->truth[g / 64] |= UINT64_C(1) << g % 64;
	}
}

bool model_names(const struct model *model, const struct catalogue *catalogue)
{
	if (model->n != catalogue->n_bitmaps)
		return false;
	for (unsigned i = 0; i < model->n; i++)
		if (strcmp(model->of[i].name, catalogue->bitmaps[i].name) != 0)
			return false;
	return true;
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

static bool is_part(const struct model_check *check, const struct area_set *areas, bool recording,
                    uint32_t area)
{
	const struct catalogue *catalogue = &check->found->catalogue;

	return catalogue->deltas[area].id &&
	       (area_in(areas, area) || (recording && area == catalogue->recording));
}

static bool shows_all(const struct model_check *check, const struct bitmap_entry *entry)
{
	if (entry->state == BITMAP_GAP || entry->state == BITMAP_LOST)
		return true;
	for (uint32_t area = 0; entry->state == BITMAP_DISABLED && area < AREAS_MAX; area++)
		if (is_part(check, &entry->missed, entry->watches, area) &&
		    !delta_is_empty(check->found->deltas[area]))
			return true;
	return false;
}

/* False where a delta is not known in memory. */
static bool show(const struct model *model, const struct model_check *check,
                 const struct bitmap_entry *entry)
{
	const struct store *found = check->found;
	bool known = check->live != NULL;

	memset(check->shown, 0, model->n_words * sizeof(uint64_t));
	memset(check->known, 0, model->n_words * sizeof(uint64_t));
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		const struct delta *live = check->live ? check->live[area] : NULL;

		if (!is_part(check, &entry->shows, entry->follows, area))
			continue;
		add_delta(check->shown, found->deltas[area]);
		if (live && live->id == found->catalogue.deltas[area].id)
			add_delta(check->known, live);
		else if (area != found->catalogue.recording)
			known = false;
	}
	return known;
}

static void add_armed(const struct model_check *check)
{
	const struct store *found = check->found;
	unsigned shift = found->geometry.region_shift - found->geometry.granule_shift;

	for (uint32_t i = 0; i < check->recovery->n_armed; i++) {
		uint64_t first = (uint64_t) check->recovery->regions[i] << shift;

		for (uint64_t g = first; g < first + (UINT64_C(1) << shift) && g < found->n_granules; g++)
			check->known[g / 64] |= UINT64_C(1) << g % 64;
	}
}

/* In memory: a change that is being written down marks before it is made. */
static bool has_missed(const struct model_check *check, const struct bitmap_entry *entry)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		const struct delta *live = check->live ? check->live[area] : NULL;

		if (is_part(check, &entry->missed, entry->watches, area) && live &&
		    live->id == check->found->catalogue.deltas[area].id && !delta_is_empty(live))
			return true;
	}
	return false;
}

static const char *compare_one(const struct model *model, const struct model_check *check,
                               unsigned i)
{
	const struct bitmap_entry *entry = &check->found->catalogue.bitmaps[i];
	const struct model_bitmap *bitmap = &model->of[i];
	static char said[80];
	bool known;

	if (shows_all(check, entry)) {
		if (check->faults || bitmap->may_show_all ||
		    (entry->state == BITMAP_DISABLED &&
		     (check->recovery->n_armed || has_missed(check, entry))))
			return "";
		(void) snprintf(said, sizeof said, "bitmap %s shows everything for no reason", entry->name);
		return said;
	}
	known = show(model, check, entry);
	if (entry->follows)
		add_armed(check);
	for (uint32_t w = 0; w < model->n_words; w++) {
		uint64_t lost = bitmap->truth[w] & ~check->shown[w];
		uint64_t over = known ? check->shown[w] & ~check->known[w] : 0;

		if (!lost && !over)
			continue;
		(void) snprintf(said, sizeof said, "bitmap %s has %s granule %u", entry->name,
		                lost ? "lost" : "too much:",
		                w * 64 + (unsigned) __builtin_ctzll(lost ? lost : over));
		return said;
	}
	return "";
}

const char *model_compare(const struct model *model, const struct model_check *check)
{
	const char *wrong = "";

	if (!model_names(model, &check->found->catalogue))
		return "these are not the bitmaps that there must be";
	for (unsigned i = 0; i < model->n && !*wrong; i++)
		wrong = compare_one(model, check, i);
	return wrong;
}
