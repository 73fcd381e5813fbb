/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dirty/grow.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"

/* Files that appear under their name when they are complete */

static int sync_folder(const char *path)
{
	char copy[PATH_MAX];
	int fd, r;

	(void) snprintf(copy, sizeof copy, "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int make_new(const char *path, char ret_name[static PATH_MAX], struct file_medium *ret,
                    struct failure *why)
{
	int fd;

	if ((size_t) snprintf(ret_name, PATH_MAX, "%s.new", path) >= PATH_MAX)
		return fail(why, ENAMETOOLONG, "%s", path);
	if (unlink(ret_name) < 0 && errno != ENOENT)    /* of a process that died */
		return fail(why, errno, "%s: cannot be removed", ret_name);
	fd = open(ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(why, errno, "%s: cannot make the store of bitmaps", ret_name);
	file_medium_init(ret, fd);
	return 0;
}

static int put_in_place(const char *name, const char *path, unsigned flags, struct failure *why)
{
	int r;

	if (renameat2(AT_FDCWD, name, AT_FDCWD, path, flags) < 0)
		return fail(why, errno, "%s: cannot be put in its place", name);
	r = sync_folder(path);
	return r == 0 ? 0 : fail(why, -r, "%s: its folder cannot be synced", path);
}

int store_file_make(const char *path, const struct store_geometry *geometry, const char *identity,
                    struct failure *why)
{
	struct file_medium medium;
	char name[PATH_MAX];
	int r = make_new(path, name, &medium, why);

	if (r < 0)
		return r;
	r = store_format(&medium.medium, geometry, identity, why);
	if (r < 0)
		(void) fail_while(why, "%s", path);
	file_medium_close(&medium);
	if (r == 0)
		r = put_in_place(name, path, RENAME_NOREPLACE, why);
	if (r < 0)
		(void) unlink(name);
	return r;
}

/* Growing */

/* The same bits at the same places, and everything from `first` on. */
static struct delta *enlarge(const struct delta *old, uint64_t first, uint64_t n_granules)
{
	struct delta *delta = delta_new(old->id, old->area, n_granules);
	uint64_t words[DELTA_PAGE_WORDS];

	for (uint32_t page = 0; delta && page < old->n_pages; page++)
		if (delta_copy_page(old, page, words)) {
			delta_load_page(delta, page, words);
			delta_mark_ahead(delta, page);
		}
	if (delta)
		delta_set(delta, first, n_granules);
	return delta;
}

static int write_whole(struct store *store, struct delta *delta, struct failure *why)
{
	int r = store_prepare_area(store, delta->area, why);

	for (uint32_t page = 0; page < delta->n_pages && r == 0; page++)
		if (delta_take_ahead(delta, page))
			r = store_write_pages(store, delta, &page, 1, why);
	return r;
}

/* What is beyond has come later.  A store may be larger than its device, which has shrunk then. */
static uint64_t known_size(const struct store *store)
{
	return store->catalogue.device_size < store->geometry.size ? store->catalogue.device_size :
	       store->geometry.size;
}

static int copy_delta(struct store *to, const struct store *from, uint32_t area, struct failure *why)
{
	uint64_t first = known_size(from) >> from->geometry.granule_shift;
	struct delta *delta = enlarge(from->deltas[area], first, to->n_granules);
	int r;

	if (!delta)
		return fail(why, ENOMEM, "cannot copy the store of bitmaps");
	r = write_whole(to, delta, why);
	if (r == 0)
		to->deltas[area] = delta;
	else
		delta_unref(delta);
	return r;
}

static int copy_store(struct medium *medium, const struct store *from, uint64_t size,
                      struct failure *why)
{
	struct store_geometry geometry = from->geometry;
	struct store_recovery found;
	struct store to;
	int r;

	if (geometry.size < size)
		geometry.size = size;
	r = store_format(medium, &geometry, from->catalogue.identity, why);
	if (r == 0)
		r = store_open(&to, medium, &found, why);
	if (r < 0)
		return r;
	for (uint32_t area = 0; area < AREAS_MAX && r == 0; area++)
		if (from->deltas[area])
			r = copy_delta(&to, from, area, why);
	if (r == 0)
		r = store_sync(&to, why);
	if (r == 0)
		r = store_commit(&to, &from->catalogue, why);
	store_close(&to);
	return r;
}

static int replace(const char *path, const struct store *store, uint64_t size, struct failure *why)
{
	struct file_medium medium;
	char name[PATH_MAX];
	int r = make_new(path, name, &medium, why);

	if (r < 0)
		return r;
	r = copy_store(&medium.medium, store, size, why);
	file_medium_close(&medium);
	if (r == 0)
		r = put_in_place(name, path, 0, why);
	if (r < 0)
		(void) unlink(name);
	return r;
}

int store_grow(const char *path, struct medium *medium, uint64_t size, bool *ret_grew,
               struct store_recovery *ret_found, struct failure *why)
{
	struct store store;
	int r = store_open(&store, medium, ret_found, why);

	*ret_grew = false;
	if (r < 0)
		return r;
	if (known_size(&store) < size) {
		r = replace(path, &store, size, why);
		*ret_grew = r == 0;
	}
	store_close(&store);
	if (!*ret_grew)
		free(take_ptr(ret_found->regions));
	return r;
}

void store_recovery_add(struct store_recovery *found, struct store_recovery *before)
{
	found->over_reported += before->over_reported;
	found->n_torn_pages += before->n_torn_pages;
	if (!found->regions) {
		found->n_armed = before->n_armed;
		found->regions = take_ptr(before->regions);
	}
	free_pointer(&before->regions);
}
