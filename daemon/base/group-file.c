/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/group-file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
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
#define DIRECT_SIZE 4096                /* what a disk is read by */
#define COMMIT_TRIES 4u

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

enum word { WORD_UNREADABLE, WORD_COMMITTED, WORD_OTHER };

static enum word read_word(int fd)
{
	char word[WORD_LEN];
	ssize_t n = pread(fd, word, sizeof word, 0);

	if (n < 0)
		return WORD_UNREADABLE;
	return n == (ssize_t) sizeof word && memcmp(word, COMMITTED, sizeof word) == 0 ?
	       WORD_COMMITTED : WORD_OTHER;
}

/*
 * Past the page cache: after a sync that failed that shows what is not there, and the next sync
 * succeeds.  File systems in memory, which cannot be asked so, have no medium.
 */
static bool medium_says_committed(int folder, const char *id)
{
	_Alignas(DIRECT_SIZE) char block[DIRECT_SIZE];
	AUTO_FD fd = openat(folder, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_DIRECT);
	ssize_t n = fd < 0 ? -1 : pread(fd, block, sizeof block, 0);

	if (n < 0)
		return errno == EINVAL;
	return n >= (ssize_t) WORD_LEN && memcmp(block, COMMITTED, WORD_LEN) == 0;
}

/* Not before the medium says so, too: a power cut must not take it back. */
static enum group_decision committed(int folder, const char *id, int fd)
{
	return fsync(fd) == 0 && medium_says_committed(folder, id) ? GROUP_COMMITTED : GROUP_UNSEEN;
}

static enum group_decision read_decision(int folder, const char *id, int fd)
{
	enum word word = read_word(fd);

	if (word == WORD_OTHER && flock(fd, LOCK_SH | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? GROUP_UNDECIDED : GROUP_UNSEEN;
	if (word == WORD_OTHER)         /* nobody can decide any more; somebody may have, just before */
		word = read_word(fd);
	if (word == WORD_COMMITTED)
		return committed(folder, id, fd);
	return word == WORD_UNREADABLE ? GROUP_UNSEEN : GROUP_ABORTED;
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
	return read_decision(folder, id, fd);
}

/* --- the one who makes it ------------------------------------------------- */

static int sync_folder(const char *path)
{
	AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

/* Durably: what is in it is relied on. */
static int make_folder(const char *path, mode_t mode, struct failure *why)
{
	char above[PATH_MAX];
	int r;

	if (mkdir(path, mode) < 0)
		return errno == EEXIST || access(path, F_OK) == 0 ? 0 :
		       fail(why, errno, "cannot make the folder %.300s", path);
	(void) snprintf(above, sizeof above, "%s", path);
	r = sync_folder(dirname(above));
	return r == 0 ? 0 : fail(why, -r, "cannot make the folder %.300s", path);
}

/* Whoever may open a file in the last one may lock it.  Where exports have a user of their own it is
 * there already, for its group (nbd-export.tmpfiles). */
static int make_folders(const char *path, struct failure *why)
{
	mode_t last = geteuid() == 0 ? 0755 : 0700;
	char part[PATH_MAX];
	int r = 0;

	for (const char *slash = strchr(path + 1, '/'); r == 0; slash = strchr(slash + 1, '/')) {
		(void) snprintf(part, sizeof part, "%.*s", slash ? (int) (slash - path) : INT_MAX, path);
		r = make_folder(part, slash ? 0755 : last, why);
		if (!slash)
			break;
	}
	return r;
}

/* Those whose makers have died before they decided; nobody needs them to know that. */
static void remove_undecided(const char *path)
{
	DIR *dir = opendir(path);

	for (const struct dirent *entry; dir && (entry = readdir(dir));) {
		AUTO_FD fd = group_id_check(entry->d_name) ?
		             openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && read_word(fd) == WORD_OTHER)
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
	r = fchmod(group->fd, 0644) == 0 && flock(group->fd, LOCK_EX | LOCK_NB) == 0 &&
	    pwrite(group->fd, UNDECIDED, WORD_LEN, 0) == (ssize_t) WORD_LEN &&
	    fsync(group->fd) == 0 ? 0 : -errno;
	if (r == 0)
		r = sync_folder(folder);
	if (r == 0)
		return 0;
	(void) (r == -EWOULDBLOCK ?
	        fail_plain(why, EBUSY, "%.300s: another process has locked it", group->path) :
	        fail(why, -r, "cannot write %.300s", group->path));
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

/* What a failed sync has left in the page cache is written again with the next write. */
int group_commit(struct group *group, struct failure *why)
{
	int code = EIO;

	for (unsigned i = 0; i < COMMIT_TRIES; i++) {
		errno = EIO;
		if (pwrite(group->fd, COMMITTED, WORD_LEN, 0) == (ssize_t) WORD_LEN &&
		    fsync(group->fd) == 0)
			return 0;
		code = errno;
	}
	return fail(why, code, "cannot write %.300s", group->path);
}

void group_end(struct group *group, bool forget)
{
	if (forget)
		(void) unlink(group->path);
	close_fd(&group->fd);
}
