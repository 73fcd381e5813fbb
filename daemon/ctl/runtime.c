/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/runtime.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/listen.h"
#include "base/log.h"
#include "base/paths.h"

#define FOLDER_TEMPLATE "nbdctl-XXXXXX"
#define CHANNEL_ENDING ".channel"
#define INSTANCES "instances"
#define NEGOTIATOR "negotiator"
#define SUN_PATH_SIZE sizeof(((struct sockaddr_un *) NULL)->sun_path)

/* A new folder in `parent`: NULL when it cannot be made there or is too long a name. */
static char *make_folder(const char *parent, size_t longest_label)
{
	AUTO_FREE char *path = NULL;
	size_t longest;

	if (!parent || parent[0] != '/')
		return NULL;
	longest = strlen(parent) + longest_label +
	          strlen("/" FOLDER_TEMPLATE "/" INSTANCES "/" "/" CONTROL_SOCKET);
	if (longest >= SUN_PATH_SIZE)
		return NULL;
	if (asprintf(&path, "%s/" FOLDER_TEMPLATE, parent) < 0) {
		path = NULL;
		return NULL;
	}
	return mkdtemp(path) ? take_ptr(path) : NULL;
}

static int name_contents(struct runtime *rt)
{
	if (asprintf(&rt->exports, "%s/exports", rt->folder) < 0) {
		rt->exports = NULL;
		return -ENOMEM;
	}
	if (asprintf(&rt->notify, "%s/notify", rt->folder) < 0) {
		rt->notify = NULL;
		return -ENOMEM;
	}
	if (asprintf(&rt->socket, "%s/nbd", rt->folder) < 0) {
		rt->socket = NULL;
		return -ENOMEM;
	}
	if (asprintf(&rt->tls, "%s/tls", rt->folder) < 0) {
		rt->tls = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int make_subfolder(const struct runtime *rt, const char *name)
{
	AUTO_FREE char *path = NULL;

	if (asprintf(&path, "%s/%s", rt->folder, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	return mkdir(path, 0700) < 0 ? -errno : 0;
}

static int make_contents(const struct runtime *rt)
{
	static const char *const names[] = { "exports", INSTANCES, NEGOTIATOR };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(names) && r == 0; i++)
		r = make_subfolder(rt, names[i]);
	return r;
}

int runtime_make(size_t longest_label, struct runtime *ret, struct failure *why)
{
	const char *parents[] = { getenv("XDG_RUNTIME_DIR"), "/run", "/tmp" };
	struct runtime rt = { 0 };
	int r;

	errno = 0;
	for (size_t i = 0; i < ARRAY_LEN(parents) && !rt.folder; i++)
		rt.folder = make_folder(parents[i], longest_label);
	if (!rt.folder)
		return fail(why, errno ? errno : ENAMETOOLONG,
		            "cannot make a private folder in $XDG_RUNTIME_DIR, /run or /tmp");
	r = name_contents(&rt);
	if (r == 0)
		r = make_contents(&rt);
	if (r < 0) {
		(void) fail(why, -r, "cannot set up the private folder %s", rt.folder);
		runtime_remove(&rt);
		return r;
	}
	*ret = rt;
	return 0;
}

int runtime_add(const struct runtime *rt, const struct export_settings *s, int *ret_channel,
                struct failure *why)
{
	char path[SUN_PATH_SIZE];
	int r;

	r = export_settings_write(rt->exports, s, why);
	if (r < 0)
		return fail_while(why, "cannot serve %s", s->device);
	(void) snprintf(path, sizeof path, INSTANCES "/%s", s->label);
	r = make_subfolder(rt, path);
	if (r < 0)
		return fail(why, -r, "cannot make a folder for %s", s->label);
	(void) snprintf(path, sizeof path, "%s/%s" CHANNEL_ENDING, rt->folder, s->label);
	return listen_unix(path, SOCK_SEQPACKET, ret_channel, why);
}

void runtime_drop(const struct runtime *rt, const char *label)
{
	char path[PATH_MAX];

	(void) snprintf(path, sizeof path, "%s/%s.conf", rt->exports, label);
	(void) unlink(path);
	(void) snprintf(path, sizeof path, "%s/%s" CHANNEL_ENDING, rt->folder, label);
	(void) unlink(path);
	(void) snprintf(path, sizeof path, "%s/" INSTANCES "/%s", rt->folder, label);
	(void) rmdir(path);
}

char *runtime_control(const struct runtime *rt, const char *label)
{
	char *path;
	int len;

	if (label)
		len = asprintf(&path, "--control=%s/" INSTANCES "/%s/" CONTROL_SOCKET, rt->folder,
		               label);
	else
		len = asprintf(&path, "--control=%s/" NEGOTIATOR "/" CONTROL_SOCKET, rt->folder);
	return len < 0 ? NULL : path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void) st;
	(void) type;
	(void) where;
	if (remove(path) < 0 && errno != ENOENT)
		log_warning("cannot remove %s, ignoring: %s", path, strerror(errno));
	return 0;
}

void runtime_remove(struct runtime *rt)
{
	if (rt->folder)
		(void) nftw(rt->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	free(rt->folder);
	free(rt->exports);
	free(rt->notify);
	free(rt->socket);
	free(rt->tls);
	*rt = (struct runtime) { 0 };
}
