/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The recorder's writes: records, and the pages that are ahead of the store. */
#include <stdatomic.h>

#include "dirty/tracker-state.h"

int recorder_write_record(struct tracker *tracker, const uint32_t *regions, uint32_t n_regions,
                          uint32_t n_pages, struct failure *why)
{
	struct store_record record = {
		.regions = regions, .n_regions = n_regions,
		.pages = tracker->pages, .n_pages = n_pages,
	};

	pthread_mutex_lock(&tracker->lock);
	tracker->n_records++;
	pthread_mutex_unlock(&tracker->lock);
	return store_write_record(&tracker->store, &record, why);
}

/* The pages in tracker->pages, which are not ahead any more. */
static int write_pages(struct tracker *tracker, struct delta *delta, uint32_t n,
                       struct failure *why)
{
	const struct regions *regions = &tracker->regions;
	int r = recorder_write_record(tracker, regions->armed, regions->n_armed, n, why);

	if (r == 0)
		r = store_write_pages(&tracker->store, delta, tracker->pages, n, why);
	if (r == 0)
		r = store_sync(&tracker->store, why);
	for (uint32_t i = 0; r < 0 && i < n; i++)
		delta_mark_ahead(delta, tracker->pages[i]);
	pthread_mutex_lock(&tracker->lock);
	tracker->n_page_writes += n;
	pthread_mutex_unlock(&tracker->lock);
	return r;
}

/* Of a range of pages, those that are ahead; *n are in tracker->pages and not written yet. */
static int gather(struct tracker *tracker, struct delta *delta, uint32_t first, uint32_t end,
                  uint32_t *n, struct failure *why)
{
	int r = 0;

	for (uint32_t page = first; page < end && r == 0; page++) {
		if (!delta_take_ahead(delta, page))
			continue;
		tracker->pages[(*n)++] = page;
		if (*n < STORE_PAGES_AT_ONCE)
			continue;
		r = write_pages(tracker, delta, *n, why);
		*n = 0;
	}
	return r;
}

int recorder_write_back(struct tracker *tracker, struct failure *why)
{
	struct delta *delta = atomic_load(&tracker->recording);
	uint32_t n = 0;
	int r;

	if (!delta)
		return 0;
	r = gather(tracker, delta, 0, delta->n_pages, &n, why);
	return r == 0 && n > 0 ? write_pages(tracker, delta, n, why) : r;
}

int recorder_record_exactly(struct tracker *tracker, struct change *change, struct failure *why)
{
	struct delta *delta = atomic_load(&tracker->recording);
	unsigned shift = tracker->granule_shift;
	uint32_t first = (uint32_t) ((change->start >> shift) / DELTA_PAGE_GRANULES);
	uint32_t last = (uint32_t) (((change->end - 1) >> shift) / DELTA_PAGE_GRANULES), n = 0;
	int r;

	tracker_mark(tracker, delta, change);
	r = gather(tracker, delta, first, last + 1, &n, why);
	if (r == 0 && n > 0)
		r = write_pages(tracker, delta, n, why);
	return r;
}

int recorder_announce_none(struct tracker *tracker, struct failure *why)
{
	const struct regions *regions = &tracker->regions;

	return tracker->store.n_announced == 0 ? 0 :
	       recorder_write_record(tracker, regions->armed, regions->n_armed, 0, why);
}

int recorder_write_back_regions(struct tracker *tracker, const uint32_t *list, uint32_t n_list,
                                struct failure *why)
{
	struct delta *delta = atomic_load(&tracker->recording);
	unsigned shift = tracker->regions.shift - tracker->granule_shift;
	uint32_t n = 0, next = 0;
	int r = 0;

	for (uint32_t i = 0; delta && i < n_list && r == 0; i++) {
		uint64_t granule = (uint64_t) list[i] << shift;
		uint64_t last = granule + (UINT64_C(1) << shift) - 1;
		uint32_t first = (uint32_t) (granule / DELTA_PAGE_GRANULES);
		uint32_t end;

		if (last >= delta->n_granules)
			last = delta->n_granules - 1;
		end = (uint32_t) (last / DELTA_PAGE_GRANULES) + 1;
		r = gather(tracker, delta, first > next ? first : next, end, &n, why);
		next = end;
	}
	return r == 0 && n > 0 ? write_pages(tracker, delta, n, why) : r;
}
