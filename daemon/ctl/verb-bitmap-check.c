/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl bitmap check: examines the file that keeps an export's bitmaps, and prints what it holds.
 */
#include "ctl/verb-bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/command-line.h"
#include "dirty/store-check.h"

enum { NAME, STATE, CREATED, SINCE, CHECKPOINT, SHOWS, MISSED, REASON, N_COLUMNS };

static const struct column columns[] = {
	[NAME] = { "NAME", COLUMN_TEXT, false, "of the bitmap" },
	[STATE] = { "STATE", COLUMN_TEXT, false, "recording, disabled, frozen, gap, lost" },
	[CREATED] = { "CREATED", COLUMN_TIME, false, "when it was made" },
	[SINCE] = { "SINCE", COLUMN_TIME, false, "when it came into its state" },
	[CHECKPOINT] = { "CHECKPOINT", COLUMN_BOOL, false, "whether it was made as one" },
	[SHOWS] = { "DELTAS", COLUMN_LIST, false, "stretches of time that it shows, by area" },
	[MISSED] = { "MISSED", COLUMN_LIST, true, "those that it has missed" },
	[REASON] = { "REASON", COLUMN_TEXT, false, "of the state" },
};

static const struct command command = {
	.verb = "bitmap check",
	.arguments = "FILE",
	.about =
"Examine a file of bitmaps that no export uses, and print what it holds.  It is not\n"
"changed.  Exit status 1 if something is wrong with it.\n",
	.min_words = 1,
	.max_words = 1,
	.columns = columns,
	.n_columns = N_COLUMNS,
};

/* --- the table of bitmaps ------------------------------------------------- */

/* "3\n7", and the recording area where it belongs to it. */
static void set_areas(struct table *t, size_t column, const struct area_set *set,
                      uint32_t recording)
{
	char lines[AREAS_MAX * 4 + 8] = "";
	size_t at = 0;

	for (uint32_t area = 0; area < AREAS_MAX; area++)
		if (area_in(set, area) || area == recording)
			at += (size_t) snprintf(lines + at, sizeof lines - at, "%s%" PRIu32,
			                        at ? "\n" : "", area);
	table_set_list(t, column, lines);
}

static void add_bitmap(struct table *t, const struct bitmap_entry *entry, uint32_t recording)
{
	table_row(t);
	table_set_text(t, NAME, entry->name);
	table_set_text(t, STATE, bitmap_state_word(entry->state));
	table_set_number(t, CREATED, entry->created);
	table_set_number(t, SINCE, entry->state_since);
	table_set_bool(t, CHECKPOINT, entry->checkpoint);
	set_areas(t, SHOWS, &entry->shows, entry->follows ? recording : NO_AREA);
	set_areas(t, MISSED, &entry->missed, entry->watches ? recording : NO_AREA);
	if (entry->pending)
		table_set_text(t, REASON, "a checkpoint of several exports, not decided");
	else if (*entry->reason)
		table_set_text(t, REASON, entry->reason);
}

static int print_bitmaps(const struct store_report *report, const struct table_wishes *wishes,
                         struct failure *why)
{
	struct table *t;
	int r = table_new("bitmaps", columns, N_COLUMNS, wishes, &t, why);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < report->catalogue.n_bitmaps; i++)
		add_bitmap(t, &report->catalogue.bitmaps[i], report->catalogue.recording);
	r = table_print(t, why);
	table_free(t);
	return r;
}

/* --- the rest, for people ------------------------------------------------- */

static void print_store(const struct store_report *report)
{
	const struct store_geometry *geometry = &report->geometry;
	const struct catalogue *catalogue = &report->catalogue;
	char size[16], granule[16], region[16], shown[sizeof catalogue->identity];

	format_size(geometry->size, size, sizeof size);
	format_size(UINT64_C(1) << geometry->granule_shift, granule, sizeof granule);
	format_size(UINT64_C(1) << geometry->region_shift, region, sizeof region);
	printable(span_of(catalogue->identity), sizeof shown - 4, shown, sizeof shown);
	(void) printf("device      %s, %s\n", shown, size);
	(void) printf("granules    %s; regions %s, at most %" PRIu32 " armed\n", granule, region,
	              geometry->arm_limit);
	(void) printf("unclean     %" PRIu64 " time%s\n", catalogue->unclean_ends,
	              catalogue->unclean_ends == 1 ? "" : "s");
}

static void print_end(const struct store_recovery *recovery, const struct device_trace *trace)
{
	char more[16];

	format_size(recovery->over_reported, more, sizeof more);
	if (!recovery->unclean)
		(void) printf("left        clean%s\n",
		              trace->machine_stopped ? ", as the machine stopped" : "");
	else
		(void) printf("left        uncleanly: %" PRIu32 " region%s will count as dirty, %s more "
		              "than is known\n", recovery->n_armed, recovery->n_armed == 1 ? "" : "s",
		              more);
}

static void print_deltas(const struct store_report *report)
{
	for (uint32_t area = 0; area < AREAS_MAX; area++) {
		const struct delta_report *delta = &report->deltas[area];
		char dirty[16];

		if (!report->catalogue.deltas[area].id)
			continue;
		format_size(delta->dirty_bytes, dirty, sizeof dirty);
		(void) printf("delta %-5" PRIu32 " %s dirty, %" PRIu32 " page%s%s\n", area, dirty,
		              delta->n_written, delta->n_written == 1 ? "" : "s",
		              area == report->catalogue.recording ? ", recording" : "");
	}
}

/* --- checking ------------------------------------------------------------- */

static void tell(void *path, const char *line)
{
	log_error("%s: %s", (const char *) path, line);
}

/* An export holds its store locked. */
static int open_store(const char *path, int *ret_fd, struct failure *why)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return fail(why, errno, "cannot open %.300s", path);
	if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return fail_plain(why, EBUSY, "%.300s is in use by its export, which alone knows what it "
		                  "means now: nbdctl bitmap list", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int print_report(const struct store_report *report, const struct table_wishes *wishes,
                        struct failure *why)
{
	if (!wishes->json && !wishes->columns) {
		print_store(report);
		print_end(&report->recovery, &report->catalogue.trace);
		print_deltas(report);
		(void) printf(report->catalogue.n_bitmaps ? "\n" : "no bitmaps\n");
	}
	return print_bitmaps(report, wishes, why);
}

static int examine(const char *path, int fd, const struct table_wishes *wishes,
                   struct store_report *report, struct failure *why)
{
	struct failure cause = { 0 };
	int r = store_check(fd, tell, (void *) path, report, &cause);

	if (r < 0)
		return fail_plain(why, EBADMSG, "%.300s is no good as a file of bitmaps", path);
	r = print_report(report, wishes, why);
	if (r == 0 && report->n_findings)
		r = fail_plain(why, EBADMSG, "%.300s is damaged in %u place%s", path,
		               report->n_findings, report->n_findings == 1 ? "" : "s");
	return r;
}

static int check(const void *options, struct failure *why)
{
	const struct verb_options *o = options;
	const char *path = o->words[0];
	struct store_report *report;
	AUTO_FD fd = -1;
	int r = open_store(path, &fd, why);

	if (r < 0)
		return r;
	report = calloc(1, sizeof *report);
	if (!report)
		return fail(why, ENOMEM, "cannot check %.300s", path);
	r = examine(path, fd, &o->table, report, why);
	store_report_clear(report);
	free(report);
	return r;
}

int bitmap_verb_check(int argc, char **argv)
{
	struct verb_options o = { 0 };

	return command_run(&command, argc, argv, &o, check);
}
