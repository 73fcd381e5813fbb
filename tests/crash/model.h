/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the bitmaps of a tracker ought to show, and the comparison with what a store has.
 *
 * "Truth" is, for every bitmap, the granules that may have changed on the medium since it began.  One
 * that is disabled has it too: it shows that, or everything.
 */
#pragma once

#include "dirty/store.h"

#define MODEL_BITMAPS 7u

struct model_bitmap {
	char name[16];
	char was[16], source[16];       /* its name before the edit, and what was merged into it */
	bool frozen;                    /* nothing is added any more */
	bool checkpoint;
	bool fresh;                     /* begins with the edit that makes this model */
	bool may_show_all;              /* something has been missed, or may have been */
	uint64_t *truth;
	/* What changed from here until the checkpoint of that name began; by its number in the model. */
	uint64_t *until[MODEL_BITMAPS];
};

struct model {
	unsigned n;
	uint32_t n_words;
	struct model_bitmap of[MODEL_BITMAPS];
};

void model_init(struct model *model, uint32_t n_words);
void model_clear(struct model *model);
void model_copy(struct model *to, const struct model *from);

struct model_bitmap *model_add(struct model *model, const char *name);
void model_remove(struct model *model, unsigned i);
uint64_t *words_copy(const struct model *model, const uint64_t *words);

/* Granules [first, end) may change; of those that are fresh only where `begun`. */
void model_mark(struct model *model, uint64_t first, uint64_t end, bool begun);

struct model_check {
	const struct store *found;
	const struct store_recovery *recovery;
	struct delta *const *live;      /* by area, in memory: what is more must be armed; or NULL */
	bool faults;                    /* something failed: bitmaps may be lost */
	uint64_t *shown, *known;        /* room */
};

/* "" or what is wrong. */
const char *model_compare(const struct model *model, const struct model_check *check);

/* Whether these are its bitmaps, by name. */
bool model_names(const struct model *model, const struct catalogue *catalogue);
