/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/export-state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/attr.h"
#include "base/device-identity.h"
#include "base/latch-file.h"
#include "ctl/units.h"

#define SECTOR 512u

/* Of a device that nobody opens for it: what sysfs says. */
static bool size_of_block_device(dev_t rdev, uint64_t *ret)
{
	char path[64];
	uint64_t sectors;
	FILE *file;
	bool good;

	(void) snprintf(path, sizeof path, "/sys/dev/block/%u:%u/size", major(rdev), minor(rdev));
	file = fopen(path, "re");
	if (!file)
		return false;
	good = fscanf(file, "%" SCNu64, &sectors) == 1;
	(void) fclose(file);
	if (good)
		*ret = sectors * SECTOR;
	return good;
}

/* An export that does not run: its device may tell why. */
static void look_at_device(struct export_state *e)
{
	struct stat st;

	e->word = "inactive";
	if (stat(e->settings->device, &st) < 0) {
		if (errno == ENOENT)
			e->word = "no-device";
		return;
	}
	if (S_ISBLK(st.st_mode)) {
		e->has_size = size_of_block_device(st.st_rdev, &e->size);
	} else if (S_ISREG(st.st_mode)) {
		e->has_size = true;
		e->size = (uint64_t) st.st_size - (uint64_t) st.st_size % SECTOR;
	}
}

/* What the last process remembered. */
static void look_at_latch(struct export_state *e)
{
	char identity[DEVICE_IDENTITY_SIZE], path[PATH_MAX], reason[LATCH_REASON_SIZE];
	struct failure ignored = { 0 };
	struct latch_place place;

	latch_place_find(NULL, &place);
	if (device_identity_of_path(e->settings->device, identity, &ignored) == 0 &&
	    latch_file_find(place.all, identity, path) == 0 && latch_file_read(path, reason) == 0)
		e->running.flush_failed = strdup(reason);
}

static const char *word_of_failure(int r)
{
	return r == -EACCES || r == -EPERM ? "unknown" : "no-answer";
}

/* `r`, and what it has said or why it has not. */
static void judge(struct export_state *e, int r, const struct failure *why)
{
	if (r == 0) {
		e->runs = true;
		e->word = e->running.state ? e->running.state : "serving";
		e->reason = e->running.state_reason && *e->running.state_reason ?
		            strdup(e->running.state_reason) : NULL;
		e->has_size = true;
		e->size = e->running.size;
		return;
	}
	look_at_device(e);
	look_at_latch(e);
	if (!control_is_absent(r)) {
		e->silent = true;
		e->word = word_of_failure(r);
		e->reason = strdup(why->text);
	}
}

/* One that is started again and again is not on its way. */
static void judge_starting(struct export_state *e, const struct units *u, const char *unit)
{
	uint32_t n = units_restarts(u, unit);

	e->word = "starting";
	if (n > 0 && asprintf(&e->reason, "it has ended %" PRIu32 " time%s and is started again "
	                      "(nbdctl log %s)", n, n == 1 ? "" : "s", e->settings->label) < 0)
		e->reason = NULL;
}

/* What systemd knows of one that does not run. */
static void judge_units(struct export_state *e, const struct units *u,
                        const struct unit_seen *seen, size_t n)
{
	const char *service = "inactive", *socket = "inactive";
	const char *label = e->settings->label;
	char unit[UNIT_NAME_SIZE], text[512];

	for (size_t i = 0; i < n; i++)
		if (strcmp(seen[i].label, label) == 0)
			*(seen[i].is_service ? &service : &socket) = seen[i].state;
	if (strcmp(service, "failed") == 0) {
		units_service_of(label, unit);
		units_text(u, unit, "Service", "StatusText", text, sizeof text);
		e->word = "failed";
		e->reason = *text ? strdup(text) : NULL;
		if (!*text && asprintf(&e->reason, "its service failed (nbdctl log %s)", label) < 0)
			e->reason = NULL;
	} else if (strcmp(service, "activating") == 0) {
		units_service_of(label, unit);
		judge_starting(e, u, unit);
	} else if (strcmp(socket, "active") != 0) {
		units_socket_of(label, unit);
		if (asprintf(&e->reason, "clients cannot reach it: systemctl start %s", unit) < 0)
			e->reason = NULL;
	}
}

/* Without systemd, all stays as it was judged. */
static void look_at_units(const struct places *p, struct export_state *all, size_t n)
{
	AUTO_FREE struct unit_seen *seen = NULL;
	struct failure ignored = { 0 };
	struct units u = { .bus = NULL };
	size_t n_seen = 0, n_inactive = 0;

	for (size_t i = 0; i < n; i++)
		n_inactive += strcmp(all[i].word, "inactive") == 0;
	if (!p->of_units || n_inactive == 0)
		return;
	if (units_connect(&u, &ignored) == 0 && units_list(&u, &seen, &n_seen, &ignored) == 0)
		for (size_t i = 0; i < n; i++)
			if (strcmp(all[i].word, "inactive") == 0)
				judge_units(&all[i], &u, seen, n_seen);
	units_close(&u);
}

void export_state_read(const struct places *p, const struct export_settings *s,
                       struct export_state *ret)
{
	struct export_state e = { .settings = s };
	struct failure why = { 0 };
	int r = running_read(p, s->label, &e.running, &why);

	judge(&e, r, &why);
	look_at_units(p, &e, 1);
	*ret = e;
}

int export_states_read(const struct places *p, const struct export_settings *s, size_t n,
                       struct inquiry *also, struct export_state **ret, struct failure *why)
{
	struct inquiry *asked = calloc(n + 1, sizeof *asked);
	struct export_state *all = calloc(n + 1, sizeof *all);

	if (!asked || !all) {
		free(asked);
		free(all);
		return fail(why, ENOMEM, "cannot ask %zu exports", n);
	}
	for (size_t i = 0; i < n; i++)
		running_ask(p, s[i].label, &asked[i]);
	if (also)
		asked[n] = *also;
	inquire(asked, n + (also != NULL), INQUIRY_PATIENCE);
	if (also)
		*also = asked[n];
	for (size_t i = 0; i < n; i++) {
		all[i].settings = &s[i];
		judge(&all[i], running_answer(&asked[i], &all[i].running), &asked[i].why);
		inquiry_clear(&asked[i]);
	}
	look_at_units(p, all, n);
	free(asked);
	*ret = all;
	return 0;
}

void export_states_free(struct export_state *all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		export_state_clear(&all[i]);
	free(all);
}

void export_state_clear(struct export_state *e)
{
	running_clear(&e->running);
	free(e->reason);
	*e = (struct export_state) { 0 };
}
