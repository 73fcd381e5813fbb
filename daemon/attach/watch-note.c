/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The notes of nbd-attach: "LIVE SENTENCE" in /run. */
#include "attach/watch-note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/paths.h"

#define NOTES_DIR RUN_DIR "/attach"

static void path_of(int index, char *ret, size_t size)
{
	(void) snprintf(ret, size, NOTES_DIR "/nbd%d", index);
}

bool watch_note_read(int index, struct watch_note *ret)
{
	char path[128], text[WATCH_SENTENCE_MAX + 16], *end;
	struct watch_note note = { 0 };
	struct flock held = { .l_type = F_RDLCK };
	AUTO_FD fd = -1;
	ssize_t n;

	path_of(index, path, sizeof path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fcntl(fd, F_OFD_GETLK, &held) < 0 || held.l_type == F_UNLCK)
		return false;
	n = read(fd, text, sizeof text - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	note.live = (uint32_t) strtoul(text, &end, 10);
	if (*end == ' ')
		(void) snprintf(note.sentence, sizeof note.sentence, "%s", end + 1);
	*ret = note;
	return true;
}

int watch_note_open(int index, int *ret_fd, struct failure *why)
{
	char path[128];
	struct flock lock = { .l_type = F_WRLCK };
	AUTO_FD fd = -1;

	path_of(index, path, sizeof path);
	(void) mkdir(RUN_DIR, 0755);
	(void) mkdir(NOTES_DIR, 0755);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return fail(why, errno, "cannot write %s", path);
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		return fail_plain(why, EBUSY, "another nbd-attach watches /dev/nbd%d", index);
	*ret_fd = take_fd(&fd);
	return 0;
}

void watch_note_write(int fd, const struct watch_note *note)
{
	char text[WATCH_SENTENCE_MAX + 16];
	int len = snprintf(text, sizeof text, "%u %s", note->live, note->sentence);

	/* Never empty, for who reads it meanwhile.  What cannot be written is only not shown. */
	(void) ftruncate(fd, pwrite(fd, text, (size_t) len, 0) < 0 ? 0 : len);
}

void watch_note_close(int index, int *fd)
{
	char path[128];

	if (*fd < 0)
		return;
	path_of(index, path, sizeof path);
	(void) unlink(path);
	close_fd(fd);
}
