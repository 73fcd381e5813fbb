/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads sysfs, one small file at a time; what is not there is not known. */
#include "attach/device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/attr.h"
#include "base/text.h"

#define NBD_MAJOR 43u
#define SECTOR 512u

/* The attribute's text without its newline; false when there is none. */
static bool read_attribute(const char *sys, int index, const char *name, char *ret, size_t size)
{
	char path[PATH_MAX];
	AUTO_FD fd = -1;
	ssize_t n;

	(void) snprintf(path, sizeof path, "%s/nbd%d/%s", sys, index, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, ret, size - 1);
	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

static uint64_t read_number(const char *sys, int index, const char *name)
{
	char text[32];

	if (!read_attribute(sys, index, name, text, sizeof text))
		return 0;
	return strtoull(text, NULL, 10);
}

bool nbd_state_read(const char *sys, int index, struct nbd_state *ret)
{
	struct nbd_state state = { .index = index };
	char path[PATH_MAX], pid[32];

	(void) snprintf(path, sizeof path, "%s/nbd%d", sys, index);
	if (access(path, F_OK) < 0)
		return false;
	state.connected = read_attribute(sys, index, "pid", pid, sizeof pid);
	state.size = read_number(sys, index, "size") * SECTOR;
	state.read_only = read_number(sys, index, "ro") != 0;
	if (read_attribute(sys, index, "backend", state.backend, sizeof state.backend))
		state.ours = identity_parse(state.backend, &state.identity);
	*ret = state;
	return true;
}

static bool parse_index(const char *name, int *ret)
{
	char *end;
	long n;

	if (strncmp(name, "nbd", 3) != 0 || name[3] < '0' || name[3] > '9')
		return false;
	n = strtol(name + 3, &end, 10);
	if (*end || n > INT_MAX)
		return false;
	*ret = (int) n;
	return true;
}

static int is_nbd(const struct dirent *entry)
{
	int index;

	return parse_index(entry->d_name, &index);
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
	int left = 0, right = 0;

	(void) parse_index((*a)->d_name, &left);
	(void) parse_index((*b)->d_name, &right);
	return (left > right) - (left < right);
}

int nbd_state_list(const char *sys, struct nbd_state **ret, size_t *ret_n, struct failure *why)
{
	struct dirent **entries;
	struct nbd_state *list;
	int n = scandir(sys, &entries, is_nbd, by_number);
	size_t n_connected = 0;

	if (n < 0)
		return fail(why, errno, "cannot read %s", sys);
	list = calloc((size_t) n + 1, sizeof *list);
	for (int i = 0; i < n; i++) {
		struct nbd_state *state = list ? &list[n_connected] : NULL;
		int index;

		if (state && parse_index(entries[i]->d_name, &index) &&
		    nbd_state_read(sys, index, state) && state->connected)
			n_connected++;
		free(entries[i]);
	}
	free(entries);
	if (!list)
		return fail(why, ENOMEM, "cannot list nbd devices");
	*ret = list;
	*ret_n = n_connected;
	return 0;
}

int nbd_index_of(const char *path, int *ret, struct failure *why)
{
	AUTO_FREE char *real = realpath(path, NULL);
	const char *name = strrchr(real ? real : path, '/');
	char shown[132];
	struct stat st;

	printable(span_of(path), 128, shown, sizeof shown);
	if (!name || !parse_index(name + 1, ret) || strncmp(real ? real : path, "/dev/", 5) != 0)
		return fail_plain(why, EINVAL, "%s is no nbd device, such as /dev/nbd0", shown);
	if (real && stat(real, &st) == 0 &&
	    (!S_ISBLK(st.st_mode) || major(st.st_rdev) != NBD_MAJOR))
		return fail_plain(why, EINVAL, "%s is no nbd device: it is something else of that "
		                  "name", shown);
	return 0;
}

int nbd_claim(int index, int *ret_fd, struct failure *why)
{
	char path[32];
	AUTO_FD fd = -1;

	(void) snprintf(path, sizeof path, "/dev/nbd%d", index);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == EBUSY)
		return fail_plain(why, EBUSY, "%s is in use: it is mounted, swapped to, or part of "
		                  "another device", path);
	if (fd < 0 && errno != ENXIO && errno != ENOENT)
		return fail(why, errno, "cannot see whether %s is in use", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

struct nbd_queue nbd_queue_read(const char *sys, int index)
{
	char cache[32] = "";

	(void) read_attribute(sys, index, "queue/write_cache", cache, sizeof cache);
	return (struct nbd_queue) {
		.block_size = (uint32_t) read_number(sys, index, "queue/logical_block_size"),
		.maximum = read_number(sys, index, "queue/max_sectors_kb") * 1024,
		.read_only = read_number(sys, index, "ro") != 0,
		.flushes = strcmp(cache, "write back") == 0,
		.fua = read_number(sys, index, "queue/fua") != 0,
		.discards = read_number(sys, index, "queue/discard_max_bytes") != 0,
		.writes_zeroes = read_number(sys, index, "queue/write_zeroes_max_bytes") != 0,
	};
}

int nbd_limit_requests(const char *sys, int index, uint32_t maximum, struct failure *why)
{
	uint64_t now = read_number(sys, index, "queue/max_sectors_kb");
	char path[PATH_MAX], text[16];
	AUTO_FD fd = -1;
	int len;

	if (maximum == 0 || now <= maximum >> 10)
		return 0;
	(void) snprintf(path, sizeof path, "%s/nbd%d/queue/max_sectors_kb", sys, index);
	len = snprintf(text, sizeof text, "%u", maximum >> 10);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t) len) != len)
		return fail(why, errno, "cannot keep requests of /dev/nbd%d within %u KiB, which "
		            "is all that the server takes", index, maximum >> 10);
	return 0;
}
