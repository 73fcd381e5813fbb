/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/store-mending.h"

#include <errno.h>
#include <stdlib.h>

#include "dirty/record.h"

int mending_add(struct store_mending *mending, struct delta *delta, uint32_t page)
{
	if (mending->n_pages == mending->room) {
		size_t room = mending->room ? 2 * mending->room : 64;
		uint32_t *pages = realloc(mending->pages, room * sizeof *pages);

		if (!pages)
			return -ENOMEM;
		mending->pages = pages;
		mending->room = room;
	}
	if (!mending->delta)
		mending->delta = delta_ref(delta);
	mending->pages[mending->n_pages++] = page;
	return 0;
}

bool mending_keep_both(struct store_mending *mending)
{
	size_t n = 0;

	for (size_t i = 0; i < mending->n_pages; i++)
		if (mending->pages[i] & PAGE_SLOT_BIT)
			mending->pages[n++] = mending->pages[i];
	mending->n_pages = n;
	return n > 0;
}

void mending_clear(struct store_mending *mending)
{
	delta_unref(mending->delta);
	free(mending->pages);
	*mending = (struct store_mending) { 0 };
}
