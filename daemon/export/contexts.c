/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/contexts.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "dirty/tracker.h"
#include "export/export.h"

static const struct context fixed[] = {
	{ NBD_CONTEXT_ID_BASE_ALLOCATION, NBD_CONTEXT_BASE_ALLOCATION },
	{ NBD_CONTEXT_ID_ALLOCATION_DEPTH, NBD_CONTEXT_ALLOCATION_DEPTH },
};

static_assert(ARRAY_LEN(fixed) + BITMAPS_MAX <= NBD_MAX_CONTEXTS, "all fit one offer");

static bool is_fixed(uint32_t id)
{
	return id < NBD_CONTEXT_ID_DIRTY_BITMAP;
}

void contexts_list(const struct export *export, struct context_list *ret)
{
	struct bitmap_info bitmaps[BITMAPS_MAX];
	unsigned n = export->tracker ? tracker_list(export->tracker, bitmaps) : 0;

	memset(ret, 0, sizeof *ret);
	memcpy(ret->contexts, fixed, sizeof fixed);
	ret->n = ARRAY_LEN(fixed);
	for (unsigned i = 0; i < n; i++) {
		struct context *context = &ret->contexts[ret->n];

		/* What others write is not recorded then: only the past is sure. */
		if (export->settings->read_only && bitmaps[i].state != BITMAP_FROZEN)
			continue;
		ret->n++;
		context->id = bitmaps[i].id;
		(void) snprintf(context->name, sizeof context->name, NBD_CONTEXT_DIRTY_BITMAP "%s",
		                bitmaps[i].name);
	}
}

const char *context_name(const struct context_list *list, uint32_t id)
{
	for (unsigned i = 0; i < list->n; i++)
		if (list->contexts[i].id == id)
			return list->contexts[i].name;
	return "(a bitmap that was removed)";
}

bool context_is_bitmap(uint32_t id)
{
	return !is_fixed(id);
}

bool context_use(const struct export *export, uint32_t id)
{
	return is_fixed(id) || (export->tracker && tracker_use(export->tracker, id));
}

void context_unuse(const struct export *export, uint32_t id)
{
	if (!is_fixed(id))
		tracker_unuse(export->tracker, id);
}

static void on_changed(struct letter *letter)
{
	struct export *export = container_of(letter, struct export, bitmaps_letter);

	atomic_store(&export->bitmaps_told, false);     /* what comes from here on posts it again */
	export->on_bitmaps_changed(export);
}

void contexts_changed(void *userdata)
{
	struct export *export = userdata;

	if (atomic_exchange(&export->bitmaps_told, true))
		return;
	export->bitmaps_letter.open = on_changed;
	mailbox_post(&export->mail, &export->bitmaps_letter);
}
