/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/group-file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/state-folder.h"

/* Of one length: the one is written over the other, within a sector. */
#define UNDECIDED "undecided\n"
#define COMMITTED "committed\n"
#define WORD_LEN (sizeof UNDECIDED - 1)

static int beside(const char *state, char ret[static PATH_MAX])
{
	size_t len = strcspn(state, ":");

	while (len > 1 && state[len - 1] != '/')
		len--;
	return snprintf(ret, PATH_MAX, "%.*s.groups", (int) len, state) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int group_folder(char ret[static PATH_MAX])
{
	const char *given = getenv("NBD_EXPORT_GROUPS"), *state = getenv("STATE_DIRECTORY");

	if (given && *given == '/')
		return snprintf(ret, PATH_MAX, "%s", given) < PATH_MAX ? 0 : -ENAMETOOLONG;
	return state && *state == '/' ? beside(state, ret) : state_folder(".groups", ret, PATH_MAX);
}

bool group_id_check(const char *id)
{
	return strlen(id) == GROUP_ID_SIZE - 1 && id[strspn(id, "0123456789abcdef")] == '\0';
}

static bool says_committed(int fd)
{
	char word[WORD_LEN];

	return pread(fd, word, sizeof word, 0) == (ssize_t) sizeof word &&
	       memcmp(word, COMMITTED, sizeof word) == 0;
}

/* Not before the medium says so, too: a power cut must not take it back. */
static enum group_decision read_decision(int fd)
{
	if (says_committed(fd))
		return fsync(fd) == 0 ? GROUP_COMMITTED : GROUP_UNSEEN;
	if (flock(fd, LOCK_SH | LOCK_NB) < 0)
		return GROUP_UNDECIDED;
	/* Nobody can decide any more; somebody may have, just before. */
	if (says_committed(fd))
		return fsync(fd) == 0 ? GROUP_COMMITTED : GROUP_UNSEEN;
	return GROUP_ABORTED;
}

enum group_decision group_look(const char *id)
{
	char path[PATH_MAX];
	AUTO_FD folder = -1, fd = -1;

	if (!group_id_check(id))
		return GROUP_ABORTED;
	if (group_folder(path) < 0)
		return GROUP_UNSEEN;
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return GROUP_UNSEEN;
	fd = openat(folder, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? GROUP_ABORTED : GROUP_UNSEEN;
	return read_decision(fd);
}

/* --- the one who makes it ------------------------------------------------- */

static int make_folders(const char *path, struct failure *why)
{
	char part[PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); ; slash = strchr(slash + 1, '/')) {
		(void) snprintf(part, sizeof part, "%.*s", slash ? (int) (slash - path) : INT_MAX, path);
		if (mkdir(part, 0755) < 0 && errno != EEXIST && access(part, F_OK) < 0)
			return fail(why, errno, "cannot make the folder %.300s", part);
		if (!slash)
			return 0;
	}
}

/* Those whose makers have died before they decided; nobody needs them to know that. */
static void remove_undecided(const char *path)
{
	DIR *dir = opendir(path);

	for (const struct dirent *entry; dir && (entry = readdir(dir));) {
		AUTO_FD fd = group_id_check(entry->d_name) ?
		             openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && !says_committed(fd))
			(void) unlinkat(dirfd(dir), entry->d_name, 0);
	}
	if (dir)
		(void) closedir(dir);
}

static int make_id(char ret[static GROUP_ID_SIZE])
{
	unsigned char random[(GROUP_ID_SIZE - 1) / 2];

	if (getrandom(random, sizeof random, 0) != (ssize_t) sizeof random)
		return -EIO;
	for (size_t i = 0; i < sizeof random; i++)
		(void) snprintf(ret + 2 * i, 3, "%02x", random[i]);
	return 0;
}

static int sync_folder(const char *path)
{
	AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

static int make_file(struct group *group, const char *folder, struct failure *why)
{
	int r;

	if ((size_t) snprintf(group->path, sizeof group->path, "%s/%s", folder, group->id) >=
	    sizeof group->path)
		return fail(why, ENAMETOOLONG, "%.300s", folder);
	group->fd = open(group->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (group->fd < 0)
		return fail(why, errno, "cannot make %.300s", group->path);
	/* Whatever the mask: the exports have another user. */
	r = fchmod(group->fd, 0644) == 0 && flock(group->fd, LOCK_EX) == 0 &&
	    pwrite(group->fd, UNDECIDED, WORD_LEN, 0) == (ssize_t) WORD_LEN &&
	    fsync(group->fd) == 0 ? 0 : -errno;
	if (r == 0)
		r = sync_folder(folder);
	if (r == 0)
		return 0;
	(void) fail(why, -r, "cannot write %.300s", group->path);
	group_end(group, true);
	return r;
}

int group_begin(struct group *ret, struct failure *why)
{
	char folder[PATH_MAX];
	int r = group_folder(folder);

	if (r < 0)
		return fail(why, -r, "no place for what several exports agree by");
	if (make_id(ret->id) < 0)
		return fail(why, EIO, "no random numbers");
	r = make_folders(folder, why);
	if (r < 0)
		return r;
	remove_undecided(folder);
	return make_file(ret, folder, why);
}

int group_commit(struct group *group, struct failure *why)
{
	errno = EIO;
	if (pwrite(group->fd, COMMITTED, WORD_LEN, 0) == (ssize_t) WORD_LEN && fsync(group->fd) == 0)
		return 0;
	return fail(why, errno, "cannot write %.300s", group->path);
}

void group_end(struct group *group, bool forget)
{
	if (forget)
		(void) unlink(group->path);
	close_fd(&group->fd);
}
