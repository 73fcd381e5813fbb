/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "generator/export-units.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/paths.h"
#include "generator/output.h"
#include "generator/unit-name.h"

#define WANTS ".wants"
#define BOOT_TARGET "multi-user.target"
#define SOCKET "nbd-export@%s.socket"
#define SERVICE "nbd-export@%s.service"

/* Names and words, as they stand in unit files. */
struct export_units {
	const struct export_settings *settings;
	bool is_device;
	bool bound;                             /* to the device's unit */
	char device[UNIT_NAME_SIZE];            /* its name, if so */
	char path[2 * PATH_MAX];                /* quoted */
	char optional_path[2 * PATH_MAX];       /* quoted, and need not exist: the export says so
	                                         * to its clients better than systemd would */
	char store[2 * PATH_MAX];               /* the folder of BitmapStore=, quoted; or "" */
	char optional_store[2 * PATH_MAX];      /* likewise */
	char socket[UNIT_NAME_SIZE];
	char service[UNIT_NAME_SIZE];
};

static int name_device(struct export_units *u, struct failure *why)
{
	/* The folder of what the device wants has a longer name than its unit. */
	int r = unit_name_of_path(u->settings->device, ".device", u->device,
	                          sizeof u->device - strlen(WANTS));

	if (r == -ENAMETOOLONG && u->is_device)
		return fail_plain(why, ENAMETOOLONG, "Device=%.200s...: too long for the name of a "
		                  "unit", u->settings->device);
	if (r == -EINVAL)
		return fail_plain(why, EINVAL, "Device=%.300s: systemd takes no path with ..",
		                  u->settings->device);
	return 0;
}

static int quote_paths(struct export_units *u, struct failure *why)
{
	const char *device = u->settings->device;
	AUTO_FREE char *optional = NULL;

	if (asprintf(&optional, "-%s", device) < 0) {
		optional = NULL;
		return fail(why, ENOMEM, "cannot quote a path");
	}
	if (unit_word(device, u->path, sizeof u->path) < 0 ||
	    unit_word(optional, u->optional_path, sizeof u->optional_path) < 0)
		return fail_plain(why, EINVAL, "Device=%.300s: cannot stand in a unit's file", device);
	return 0;
}

/* By default it is in StateDirectory=. */
static int quote_store(struct export_units *u, struct failure *why)
{
	const char *store = u->settings->bitmap_store;
	int len = (int) (strrchr(store, '/') - store);
	AUTO_FREE char *folder = NULL;

	if (asprintf(&folder, "-%.*s", len ? len : 1, store) < 0) {
		folder = NULL;
		return fail(why, ENOMEM, "cannot quote a path");
	}
	if (unit_word(folder, u->optional_store, sizeof u->optional_store) < 0 ||
	    unit_word(folder + 1, u->store, sizeof u->store) < 0)
		return fail_plain(why, EINVAL, "BitmapStore=%.300s: cannot stand in a unit's file",
		                  store);
	return 0;
}

static int prepare(struct export_units *u, bool devices, struct failure *why)
{
	const struct export_settings *s = u->settings;
	int r;

	u->is_device = strncmp(s->device, "/dev/", 5) == 0;
	u->bound = u->is_device && devices;
	(void) snprintf(u->socket, sizeof u->socket, SOCKET, s->label);
	(void) snprintf(u->service, sizeof u->service, SERVICE, s->label);
	r = name_device(u, why);
	if (r == 0)
		r = quote_paths(u, why);
	return r < 0 || !*s->bitmap_store ? r : quote_store(u, why);
}

/* Both units end when the device goes, and wait for the file system of a file. */
static void print_unit(FILE *out, const struct export_units *u)
{
	fprintf(out, "# Made by nbd-export-generator from " EXPORTS_DIR "/%s.conf\n[Unit]\n",
	        u->settings->label);
	if (u->bound)
		fprintf(out, "BindsTo=%s\nAfter=%s\n", u->device, u->device);
	else if (!u->is_device)
		fprintf(out, "RequiresMountsFor=%s\n", u->path);
	if (*u->store)
		fprintf(out, "RequiresMountsFor=%s\n", u->store);
}

static void print_service(FILE *out, const struct export_units *u)
{
	bool read_only = u->settings->read_only;

	fprintf(out, "[Service]\nDevicePolicy=closed\n");
	if (u->is_device)
		fprintf(out, "DeviceAllow=%s %s\n", u->path, read_only ? "r" : "rw");
	fprintf(out, "%s=%s\n", read_only && !u->is_device ? "BindReadOnlyPaths" : "BindPaths",
	        u->optional_path);
	if (*u->store)
		fprintf(out, "BindPaths=%s\n", u->optional_store);
}

static int write_drop_in(int dir, const struct export_units *u, bool service, struct failure *why)
{
	AUTO_FREE char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return fail(why, errno, "cannot write a drop-in");
	print_unit(out, u);
	if (service)
		print_service(out, u);
	if (fclose(out) != 0)
		return fail(why, errno, "cannot write a drop-in");
	return output_drop_in(dir, service ? u->service : u->socket, text, why);
}

int export_units_write(int dir, const struct export_settings *s, bool devices,
                       struct failure *why)
{
	struct export_units u = { .settings = s };
	const char *wisher;
	int r = prepare(&u, devices, why);

	wisher = u.bound ? u.device : BOOT_TARGET;
	if (r == 0)
		r = write_drop_in(dir, &u, false, why);
	if (r == 0)
		r = write_drop_in(dir, &u, true, why);
	if (r == 0)
		r = output_want(dir, wisher, u.socket, "nbd-export@.socket", why);
	if (r == 0 && s->start_at_boot)
		r = output_want(dir, wisher, u.service, "nbd-export@.service", why);
	return r < 0 ? fail_while(why, EXPORTS_DIR "/%s.conf", s->label) : 0;
}
