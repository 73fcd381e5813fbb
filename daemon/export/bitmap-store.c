/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/bitmap-store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/attr.h"
#include "base/paths.h"
#include "base/state-folder.h"
#include "export/block-stack.h"

/* --- where it is ---------------------------------------------------------- */

/* systemd may give several, with colons between; those of a label it leaves as they are. */
static size_t first_of(const char *folders, const char *label)
{
	size_t len = strcspn(folders, ":"), own = len;

	while (own > 0 && folders[own - 1] != '/')
		own--;
	if (strncmp(folders + own, label, strlen(label)) != 0)
		return len;
	own += strlen(label);
	return folders[own] == '\0' || folders[own] == ':' ? own : len;
}

static int name_folder(const char *label, char *ret, size_t size)
{
	const char *given = getenv("STATE_DIRECTORY");
	size_t len = given ? first_of(given, label) : 0;

	if (len == 0 || *given != '/')
		return state_folder(label, ret, size);
	return snprintf(ret, size, "%.*s", (int) len, given) < (int) size ? 0 : -ENAMETOOLONG;
}

static int name_store(const struct export_settings *s, char ret[PATH_MAX], struct failure *why)
{
	char folder[PATH_MAX];
	int r;

	if (s->bitmap_store && *s->bitmap_store) {
		(void) snprintf(ret, PATH_MAX, "%s", s->bitmap_store);
		return 0;
	}
	r = name_folder(s->label, folder, sizeof folder);
	if (r == -ENOENT)
		return fail_plain(why, ENOENT, "no place to keep bitmaps: neither STATE_DIRECTORY nor "
		                  "XDG_STATE_HOME nor HOME is set, nor BitmapStore=");
	if (r < 0 || snprintf(ret, PATH_MAX, "%s/" BITMAPS_FILE, folder) >= PATH_MAX)
		return fail(why, ENAMETOOLONG, "cannot name the store of bitmaps");
	return 0;
}

int bitmap_store_make_folder(const struct export_settings *settings, const char *path,
                             struct failure *why)
{
	/* Of root's, systemd's units have their folders in the same place. */
	const mode_t above = geteuid() == 0 ? 0755 : 0700;
	char part[PATH_MAX];

	if (settings->bitmap_store && *settings->bitmap_store)
		return 0;
	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		(void) snprintf(part, sizeof part, "%.*s", (int) (slash - path), path);
		if (mkdir(part, strchr(slash + 1, '/') ? above : 0700) < 0 && errno != EEXIST &&
		    access(part, F_OK) < 0)
			return fail(why, errno, "cannot make the folder %.300s for bitmaps", part);
	}
	return 0;
}

int bitmap_store_path(const struct export_settings *settings, char ret[PATH_MAX],
                      struct failure *why)
{
	int r = name_store(settings, ret, why);

	if (r == 0 && settings->bitmaps && *settings->bitmaps)
		r = bitmap_store_make_folder(settings, ret, why);
	return r;
}

/* --- where it must not be ------------------------------------------------- */

/* The file, or the nearest folder above it that is there. */
static bool stat_nearest(const char *path, struct stat *ret, char nearest[PATH_MAX])
{
	(void) snprintf(nearest, PATH_MAX, "%s", path);
	while (stat(nearest, ret) < 0) {
		char *slash = strrchr(nearest, '/');

		if (!slash || slash == nearest)
			return stat("/", ret) == 0;
		*slash = '\0';
	}
	return true;
}

/* One line of mountinfo: whether it is of this mount, and its source. */
static bool read_mount(const char *line, unsigned long long wanted, char source[PATH_MAX])
{
	const char *rest = strstr(line, " - ");
	unsigned long long id;

	return sscanf(line, "%llu", &id) == 1 && id == wanted && rest &&
	       sscanf(rest, " - %*s %4095s", source) == 1;
}

/* A file system without a device number of its own, as btrfs: by what was mounted. */
static dev_t device_of_mount(const char *path)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, source[PATH_MAX] = "";
	struct statx stx = { 0 };
	struct stat st;
	size_t size = 0;
	bool found = false;

	if (mounts && statx(AT_FDCWD, path, 0, STATX_MNT_ID, &stx) == 0)
		while (!found && getline(&line, &size, mounts) >= 0)
			found = read_mount(line, stx.stx_mnt_id, source);
	free(line);
	if (mounts)
		(void) fclose(mounts);
	return found && stat(source, &st) == 0 && S_ISBLK(st.st_mode) ? st.st_rdev : 0;
}

static dev_t device_below(const char *path, const struct stat *st)
{
	if (S_ISBLK(st->st_mode))
		return st->st_rdev;
	return major(st->st_dev) ? st->st_dev : device_of_mount(path);
}

static int refuse(const char *store_path, const struct device *device, struct failure *why)
{
	return fail_plain(why, EINVAL, "the store of bitmaps, %.300s, lies on the exported %s: "
	                  "clients would overwrite it.  BitmapStore= can put it elsewhere",
	                  store_path, device->path);
}

int bitmap_store_refuse_own_stack(const char *store_path, const struct device *device,
                                  struct failure *why)
{
	struct stat of_device, of_store;
	struct block_stack below_store, below_device;
	char nearest[PATH_MAX];
	dev_t disk;

	if (fstat(device->fd, &of_device) < 0 || !stat_nearest(store_path, &of_store, nearest))
		return fail(why, errno, "cannot look where the store of bitmaps lies");
	if (of_device.st_dev == of_store.st_dev && of_device.st_ino == of_store.st_ino)
		return refuse(store_path, device, why);
	disk = device_below(nearest, &of_store);
	below_store = (struct block_stack) {
		.sys = BLOCK_STACK_SYS,
		.device = S_ISBLK(of_device.st_mode) ? of_device.st_rdev : 0,
		.file = S_ISBLK(of_device.st_mode) ? NULL : &of_device,
		.through_files = true,
	};
	if (disk && block_stack_reaches(&below_store, disk))
		return refuse(store_path, device, why);
	/* The other way round an image beside the store is fine, but for one that is the store. */
	below_device = (struct block_stack) {
		.sys = BLOCK_STACK_SYS,
		.device = disk,
		.file = &of_store,
	};
	if (S_ISBLK(of_device.st_mode) && block_stack_reaches(&below_device, of_device.st_rdev))
		return refuse(store_path, device, why);
	return 0;
}
