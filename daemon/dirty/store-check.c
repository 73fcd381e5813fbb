/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/store-check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/store-scan.h"

/* Who is told, and how often. */
struct teller {
	void (*found)(void *userdata, const char *line);
	void *userdata;
	unsigned n;
};

static void tell(struct teller *teller, const char *fmt, ...) PRINTF(2, 3);
static void tell(struct teller *teller, const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	(void) vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	teller->n++;
	teller->found(teller->userdata, line);
}

/* A medium that cannot be written to */

static int sync_nothing(struct medium *medium)
{
	(void) medium;
	return 0;
}

static int write_nothing(struct medium *medium, uint64_t at, const void *data, size_t length)
{
	(void) medium, (void) at, (void) data, (void) length;
	return -EROFS;
}

static int change_nothing(struct medium *medium, uint64_t at, uint64_t length)
{
	(void) medium, (void) at, (void) length;
	return -EROFS;
}

static struct medium_ops read_only(const struct medium_ops *ops)
{
	return (struct medium_ops) {
		.read = ops->read,
		.next_data = ops->next_data,
		.sync = sync_nothing,
		.write = write_nothing,
		.allocate = change_nothing,
		.clear = change_nothing,
	};
}

/* What is found */

static void tell_slots(struct teller *teller, const char *what, const char *const wrong[2])
{
	for (unsigned slot = 0; slot < 2; slot++)
		if (wrong[slot])
			tell(teller, "%s %u is damaged: %s", what, slot, wrong[slot]);
}

/* The other slot of a new record or catalogue may not have been written yet, or be torn. */
static void tell_scan(struct teller *teller, const struct store *store,
                      const struct store_scan *scan)
{
	tell_slots(teller, "geometry", scan->geometry_wrong);
	tell_slots(teller, "catalogue", scan->catalogue_wrong);
	if (scan->record_wrong[0] && scan->record_wrong[1])
		tell_slots(teller, "record", scan->record_wrong);
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		const struct area_scan *found = &scan->areas[area];

		if (found->n_damaged > found->n_announced)
			tell(teller, "delta %llu in area %u: %u damaged page slots: what they may have held "
			     "counts as changed", (unsigned long long) store->catalogue.deltas[area].id, area,
			     found->n_damaged - found->n_announced);
	}
}

static void tell_recovery(struct teller *teller, const struct store_recovery *recovery)
{
	if (recovery->record_missing)
		tell(teller, "it was not detached, and no record says what was armed: all of the device "
		     "counts as changed");
}

static uint64_t bytes_of(const struct store *store, const struct delta *delta)
{
	unsigned shift = store->geometry.granule_shift;
	uint64_t bytes = delta_count(delta) << shift;

	return delta_test(delta, store->n_granules - 1)
		? bytes - ((store->n_granules << shift) - store->geometry.size) : bytes;
}

static void fill_in(struct store_report *report, const struct store *store,
                    const struct store_scan *scan)
{
	report->geometry = store->geometry;
	memcpy(report->uuid, store->uuid, sizeof report->uuid);
	report->catalogue = store->catalogue;
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		if (!store->deltas[area])
			continue;
		report->deltas[area] = (struct delta_report) {
			.n_written = scan->areas[area].n_written,
			.n_damaged = scan->areas[area].n_damaged,
			.n_torn = scan->areas[area].n_announced,
			.dirty_bytes = bytes_of(store, store->deltas[area]),
		};
	}
}

int store_check(int fd, void (*found)(void *userdata, const char *line), void *userdata,
                struct store_report *ret, struct failure *why)
{
	AUTO_FREE struct store *store = malloc(sizeof *store);
	AUTO_FREE struct store_scan *scan = calloc(1, sizeof *scan);
	struct teller teller = { .found = found, .userdata = userdata };
	struct file_medium file;
	struct medium_ops ops;
	int r;

	memset(ret, 0, sizeof *ret);
	if (!store || !scan)
		return fail(why, ENOMEM, "cannot check the bitmap store");
	file_medium_init(&file, fd);
	ops = read_only(file.medium.ops);
	file.medium.ops = &ops;
	r = store_open_scan(store, &file.medium, &ret->recovery, scan, why);
	if (r == 0) {
		fill_in(ret, store, scan);
		tell_scan(&teller, store, scan);
		tell_recovery(&teller, &ret->recovery);
		store_close(store);
	} else
		tell(&teller, "%s", why->text);
	ret->n_findings = teller.n;
	return r;
}

void store_report_clear(struct store_report *report)
{
	free_pointer(&report->recovery.regions);
}
