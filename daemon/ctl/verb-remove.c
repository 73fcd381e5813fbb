/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdctl remove: the opposite of add.  Clients are never cut off by surprise: while there are
 * some it refuses and names them, or drains if it is told to.
 */
#include "ctl/verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/settings.h"
#include "ctl/activate.h"
#include "ctl/command-line.h"
#include "ctl/folder-lock.h"
#include "ctl/running.h"

#define SECOND UINT64_C(1000000)
#define NAMED 8u                /* clients in a sentence */

struct remove_options {
	struct verb_options common;
	bool drain;
	uint32_t patience;              /* seconds; 0: as long as it takes */
	bool force;
	bool purge;
};

static int parse_drain(const char *value, void *into, struct failure *why)
{
	struct remove_options *o = into;

	o->drain = true;
	return *value ? setting_u32(value, &o->patience, why) : 0;
}

static const struct verb_option options[] = {
	{ 0, "drain", "[=SECONDS]", parse_drain, 0,
	  "let clients finish what is in flight, flush, and close\n"
	  "them first; not within SECONDS: stay as it is\n" },
	{ 0, "force", NULL, option_flag, offsetof(struct remove_options, force),
	  "remove it under the clients that are connected\n" },
	{ 0, "purge", NULL, option_flag, offsetof(struct remove_options, purge),
	  "remove its dirty bitmaps too, if it has any\n" },
};

static const struct command command = {
	.verb = "remove",
	.arguments = "LABEL",
	.about =
"Stop an export and remove its file.  While clients are connected it refuses, and\n"
"names them.  The device is left as it is.\n",
	.min_words = 1,
	.max_words = 1,
	.options = options,
	.n_options = ARRAY_LEN(options),
};

static int fail_busy(const char *label, const struct running_client *clients, size_t n,
                     struct failure *why)
{
	char names[NAMED * 72];
	size_t at = 0;

	for (size_t i = 0; i < n && i < NAMED && at < sizeof names; i++)
		at += (size_t) snprintf(names + at, sizeof names - at, "%s%.64s", i ? ", " : "",
		                        clients[i].peer ? clients[i].peer : "?");
	return fail_plain(why, EBUSY, "%s has %zu client%s: %.300s%s (--drain lets them finish, "
	                  "--force does not ask)", label, n, n == 1 ? "" : "s", names,
	                  n > NAMED ? ", ..." : "");
}

static int refuse_while_busy(sd_bus *bus, const char *label, struct failure *why)
{
	struct running_client *clients;
	size_t n;
	int r = running_clients(bus, label, &clients, &n, why);

	if (r < 0)
		return r;
	if (n > 0)
		r = fail_busy(label, clients, n, why);
	running_clients_free(clients, n);
	return r;
}

static void resume(sd_bus *bus, const char *label)
{
	struct failure ignored = { 0 };

	(void) control_call(bus, CONTROL_EXPORT(label), "Resume", NULL, CONTROL_PATIENCE, NULL,
	                    &ignored);
}

static int drain(const struct remove_options *o, sd_bus *bus, const char *label,
                 struct failure *why)
{
	uint64_t patience = o->patience ? o->patience * SECOND : UINT64_MAX;
	struct failure cause = { 0 };
	int r = control_call(bus, CONTROL_EXPORT(label), "Drain", NULL, patience, NULL, &cause);

	if (r == 0)
		return 0;
	if (r != -ETIMEDOUT) {
		*why = cause;
		return r;
	}
	resume(bus, label);
	return fail_plain(why, ETIMEDOUT, "%s is not drained after %u s, and stays as it was",
	                  label, o->patience);
}

/* What is asked of a running export first.  `ret_drained`: it must resume if all fails. */
static int prepare(const struct remove_options *o, sd_bus *bus, const char *label,
                   bool *ret_drained, struct failure *why)
{
	int r = 0;

	if (o->drain)
		r = drain(o, bus, label, why);
	else if (!o->force)
		r = refuse_while_busy(bus, label, why);
	*ret_drained = r == 0 && o->drain;
	return r;
}

static int remove_file(const struct places *p, const char *label, struct failure *why)
{
	AUTO_FREE char *path = places_file(p, label);

	if (!path)
		return fail(why, ENOMEM, "cannot remove %s", label);
	return unlink(path) < 0 ? fail(why, errno, "cannot remove %s", path) : 0;
}

/* What the unit keeps over restarts: the memory of a failed flush, a socket.  Only what is
 * known is removed. */
static void remove_leftovers(const struct places *p, const char *label)
{
	AUTO_FREE char *folder = NULL;
	DIR *dir;

	if (asprintf(&folder, "%s/instances/%s", p->runtime, label) < 0) {
		folder = NULL;
		return;
	}
	dir = opendir(folder);
	if (!dir)
		return;
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (strcmp(entry->d_name, CONTROL_SOCKET) == 0 ||
		    strncmp(entry->d_name, "flush-failed-", strlen("flush-failed-")) == 0)
			(void) unlinkat(dirfd(dir), entry->d_name, 0);
	(void) closedir(dir);
	if (rmdir(folder) < 0 && errno != ENOENT)
		log_warning("cannot remove %s, ignoring: %s", folder, strerror(errno));
}

static int check_exists(const struct places *p, const char *label, struct failure *why)
{
	AUTO_FREE char *path = NULL;
	struct stat st;
	int r = export_label_check(label, why);

	if (r < 0)
		return r;
	path = places_file(p, label);
	if (!path)
		return fail(why, ENOMEM, "cannot look for %s", label);
	if (lstat(path, &st) < 0 && errno == ENOENT)
		return fail_plain(why, ENOENT, "there is no export %s: no file %s", label, path);
	return 0;
}

static int remove_locked(const struct remove_options *o, const char *label,
                         struct failure *why)
{
	const struct places *p = &o->common.places;
	struct failure cause = { 0 };
	AUTO_BUS *bus = NULL;
	bool drained = false;
	int r = running_connect(p, label, &bus, &cause);

	if (r == -EACCES || (r < 0 && r != -ENOTCONN && r != -ENOENT && !o->force))
		return fail_plain(why, -r, "%s", cause.text);
	if (bus)
		r = prepare(o, bus, label, &drained, why);
	else
		r = 0;
	if (r == 0)
		r = remove_file(p, label, why);
	if (r < 0) {
		if (drained)
			resume(bus, label);
		return r;
	}
	control_close(&bus);
	return 0;
}

static int remove_export(const struct remove_options *o, const char *label,
                         struct failure *why)
{
	const struct places *p = &o->common.places;
	AUTO_FD lock = -1;
	int r = check_exists(p, label, why);

	if (r == 0)
		r = folder_lock(p->exports, &lock, why);
	if (r == 0)
		r = remove_locked(o, label, why);
	if (r < 0)
		return r;
	close_fd(&lock);
	r = deactivate(p, label, why);
	if (r < 0)
		return fail_while(why, "the file of %s is removed, but", label);
	remove_leftovers(p, label);
	return 0;
}

static int run(const void *options_read, struct failure *why)
{
	const struct remove_options *o = options_read;
	const char *label = o->common.words[0];
	int r;

	if (o->common.places.of_serve && !o->common.exports)
		return fail_plain(why, ENOTSUP, "`nbdctl serve` serves what it was started with");
	r = remove_export(o, label, why);
	if (r == 0)
		(void) printf("removed %s%s\n", label, o->purge ? "; it had no bitmaps" : "");
	return r;
}

int verb_remove(int argc, char **argv)
{
	struct remove_options o = { .force = false };

	return command_run(&command, argc, argv, &o, run);
}
