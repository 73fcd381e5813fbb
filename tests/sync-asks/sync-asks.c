/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For LD_PRELOAD: the test decides what becomes of each sync and each discard, and when.
 *
 * Before a fdatasync(2), a write with RWF_DSYNC and a BLKDISCARD, a record "sync INODE", "dsync
 * INODE" or "discard INODE" goes to the socket NBD_EXPORT_SYNC_ASKS, over a connection of its own.  The answer is an errno, with which
 * the call fails, or 0 to go on.  What io_uring does is not seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static int answer_to(const char *question)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("NBD_EXPORT_SYNC_ASKS");
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char text[16] = "0";

	if (path)
		(void) snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (connect(fd, (struct sockaddr *) &address, sizeof address) == 0) {
		(void) !write(fd, question, strlen(question));
		(void) !read(fd, text, sizeof text - 1);
	}
	(void) close(fd);
	return atoi(text);
}

static int ask(const char *what, int fd)
{
	char question[64];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return 0;
	(void) snprintf(question, sizeof question, "%s %ju", what, (uintmax_t) st.st_ino);
	return answer_to(question);
}

int fdatasync(int fd)
{
	int error = ask("sync", fd);

	if (!error)
		return (int) syscall(SYS_fdatasync, fd);
	errno = error;
	return -1;
}

/* Its name where off_t has 64 bits: where it is called, and where it is defined. */
ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
	int error = flags & RWF_DSYNC ? ask("dsync", fd) : 0;

	if (!error)
		return syscall(SYS_pwritev2, fd, iov, n, offset, 0, flags);
	errno = error;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	int error = request == BLKDISCARD ? ask("discard", fd) : 0;
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (!error)
		return (int) syscall(SYS_ioctl, fd, request, argument);
	errno = error;
	return -1;
}
